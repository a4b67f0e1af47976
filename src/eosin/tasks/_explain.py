"""`eosin evaluate --why`: the difference between two protocols, for each encoder and dataset."""

from dataclasses import asdict
from typing import Any

from eosin.errors import UsageError
from eosin.protocols._base import find_protocol
from eosin.tasks._baselines import with_baselines
from eosin.tasks._evaluate import Config, load_splits, make_inputs
from eosin.tasks._why import HEADS, differences, explain, lines


def explain_all(config: Config) -> tuple[list[str], list[dict[str, Any]]]:
    """Explains for each dataset, encoder and task why the two protocols give other numbers.

    Embeddings are those that the evaluation has left.

    Returns:
        Lines for people, and the same for machines.

    Raises:
        UsageError: no task is one that both protocols settle.
    """
    first, second = (find_protocol(name) for name in config.protocol)
    tasks = [
        task
        for task in config.task
        if task in HEADS and getattr(first, task) and getattr(second, task)
    ]
    if not tasks:
        raise UsageError(
            f"--why: {first.name} and {second.name} share none of the tasks "
            f"{', '.join(config.task)}; it explains {' and '.join(HEADS)}."
        )
    said = [f"Settings in which {first.name} and {second.name} differ:"]
    said += [f"  {name}: {one} | {other}" for name, one, other in differences(first, second, tasks)]
    facts: list[dict[str, Any]] = []
    encoders = list(with_baselines(config.encoders, config.seed))
    for splits in [load_splits(root, config) for root in config.on]:
        for encoder in encoders:
            inputs = make_inputs(encoder, splits, config)
            for task in tasks:
                steps = explain(task, first, second, inputs, config.seed)
                dataset = inputs.data_stamp.name
                said += ["", f"{encoder.name} on {dataset}.", *lines(task, first, second, steps)]
                facts.append(
                    {
                        "encoder": encoder.name,
                        "dataset": dataset,
                        "task": task,
                        "steps": [asdict(step) for step in steps],
                    }
                )
    return said, facts

"""Why two protocols give an encoder different numbers: one setting is changed at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from eosin.embeddings.extract import NO_SHIFT
from eosin.errors import UsageError
from eosin.probes._base import Head
from eosin.protocols._base import Protocol
from eosin.protocols._division import NoSelection
from eosin.results.statistics import measure_mean
from eosin.results.wording import METRIC_NAMES
from eosin.tasks._base import Inputs, Job, run_head

HEADS = ("linear", "knn")
"""The tasks whose protocols can be taken apart."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One protocol on the way from the first to the second.

    Attributes:
        changed: what differs from the step before, in words; of the first, nothing.
        metric: the one that is reported.
        value: of that metric on the test images as they are.
        selected_on: what hyper-parameters were chosen on.
        n_fit: how many images were fitted on.
    """

    changed: str
    metric: str
    value: float
    selected_on: str
    n_fit: int


def explain(task: str, first: Protocol, second: Protocol, inputs: Inputs, seed: int) -> list[Step]:
    """Goes from one protocol to another: metric, division, classifier, as far as they differ.

    The order matters where settings act together: the metric needs no new fit, and the division no
    new classifier. Where the second division leaves nothing to choose on, the classifier is
    changed before it.

    Args:
        task: `linear` or `knn`.
        first: where to start.
        second: where to end.
        inputs: an encoder and a dataset.
        seed: of what is random.

    Raises:
        UsageError: a protocol does not settle the task.
    """
    for protocol in (first, second):
        if task not in HEADS or getattr(protocol, task) is None:
            raise UsageError(
                f"--why compares {' and '.join(HEADS)} of two protocols; {protocol.name} has no "
                f"{task}."
            )
    changes = [
        ("metric", f"metric: {METRIC_NAMES[second.metric]}"),
        ("division", f"images: {_described(second.division)}"),
        (task, f"classifier: {_described(getattr(second, task))}"),
    ]
    if isinstance(second.division, NoSelection) and _chooses(getattr(first, task)):
        # The first one's classifier could choose nothing on the second one's images.
        changes[1:] = changes[:0:-1]
    steps, protocol = [(first, "")], first
    for name, said in changes:
        if getattr(first, name) == getattr(second, name):
            continue
        protocol = replace(protocol, **{name: getattr(second, name)})
        steps.append((protocol, said))
    return list(_measured(steps, task, inputs, seed))


def lines(task: str, first: Protocol, second: Protocol, steps: Sequence[Step]) -> list[str]:
    """Writes the steps for people: each value, and by how much it differs from the one before."""
    said = [f"Why {first.name} and {second.name} differ ({task}):"]
    before: float | None = None
    for number, step in enumerate(steps):
        points = "" if before is None else f" ({100 * (step.value - before):+.1f} points)"
        name = first.name if number == 0 else step.changed
        value = f"{METRIC_NAMES[step.metric]} {step.value:.3f}{points}"
        said.append(f"  {name}: {value}; fitted on {step.n_fit:,}, chosen on: {step.selected_on}")
        before = step.value
    return said


def differences(
    first: Protocol, second: Protocol, tasks: Sequence[str] = HEADS
) -> list[tuple[str, str, str]]:
    """Lists the settings in which two protocols differ: name, of the first, of the second.

    Args:
        first: one protocol.
        second: another one.
        tasks: settings of other tasks are left out.
    """
    one, other = _settings(first), _settings(second)
    others = {*first.tasks, *second.tasks} - {*tasks}
    return [
        (name, one.get(name, "-"), other.get(name, "-"))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name) and name.partition(".")[0] not in others
    ]


def _measured(
    steps: Sequence[tuple[Protocol, str]], task: str, inputs: Inputs, seed: int
) -> Iterator[Step]:
    fitted: dict[tuple[Any, Any], Any] = {}
    for protocol, changed in steps:
        head: Head | None = getattr(protocol, task)
        key = (protocol.division, head)
        if key not in fitted:
            job = Job(task=task, protocol=protocol, seed=seed)
            rows = run_head(task, head, job, inputs.embedded)
            fitted[key] = next(row for row in rows if row[0].data.shift == NO_SHIFT)
        result, predictions = fitted[key]
        yield Step(
            changed=changed,
            metric=protocol.metric,
            value=measure_mean([predictions], protocol.metric, draws=1).value,
            selected_on=result.selection["split"],
            n_fit=result.selection["n_fit"],
        )


def _chooses(head: Head) -> bool:
    """Whether a classifier has several values to choose from."""
    return any(isinstance(value, tuple) and len(value) > 1 for _, value in _values(head))


def _described(settings: Any) -> str:
    """Names a division or a classifier with its settings."""
    named = ", ".join(f"{name} {_short(value)}" for name, value in _values(settings))
    return f"{type(settings).__name__}({named})"


def _settings(protocol: Protocol) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in _values(protocol):
        if name in ("name", "version", "source", "choices"):
            continue
        flat[name] = type(value).__name__ if is_dataclass(value) else str(value)
        if is_dataclass(value):
            flat |= {f"{name}.{inner}": _short(each) for inner, each in _values(value)}
    return flat


def _values(settings: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(settings):
        for each in fields(settings):
            yield each.name, getattr(settings, each.name)


def _short(value: Any) -> str:
    """Writes a long grid by its ends."""
    if isinstance(value, tuple) and len(value) > 8:
        ends = ", ".join(f"{each:g}" for each in (value[0], value[1]))
        return f"{len(value)} values: {ends}, …, {value[-1]:g}"
    if isinstance(value, float | np.floating):
        return f"{value:g}"
    return str(value)

"""`eosin bench-data`: how fast tiles become views on this machine."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome
from eosin.commands._recipe import parse_with_recipe


def _run(words: list[str]) -> Outcome:
    from eosin.pretrain.bench_data import Config, measure_feeding

    config, recipe = parse_with_recipe(COMMAND, Config, words)
    report = measure_feeding(config, recipe)
    return Outcome(str(report), asdict(report))


COMMAND = Command(
    name="bench-data",
    summary="Measure how fast this machine makes views of tiles, and how many GPUs that feeds.",
    example="eosin bench-data tiles --recipe dino",
    run=_run,
)

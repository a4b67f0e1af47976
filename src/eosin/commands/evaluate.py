"""`eosin evaluate`: encoders are benchmarked on labelled images."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from rich.console import Console

    from eosin.results.comparison import compare_encoders
    from eosin.results.files import read_results
    from eosin.results.tables import print_table
    from eosin.tasks._evaluate import Config, evaluate

    config = COMMAND.parse(Config, words)
    results = evaluate(config)
    # To standard error: standard output is the outcome's, which --json makes a line for machines.
    print_table(compare_encoders(read_results(config.out)), console=Console(stderr=True))
    return Outcome(
        text=f"{len(results)} results are in {config.out}.\n"
        f"Next: eosin report {config.out} --out report",
        facts={"results": str(config.out), "rows": len(results)},
    )


COMMAND = Command(
    name="evaluate",
    summary="Benchmark encoders on labelled images with linear probe and kNN.",
    example="eosin evaluate runs/bt/encoder --on LABELLED --out results",
    run=_run,
)

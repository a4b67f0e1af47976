"""`eosin evaluate`: encoders are benchmarked on labelled images."""

import os

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    if words == ["--list"]:
        return _list()
    from rich.console import Console

    from eosin.results.comparison import compare_encoders
    from eosin.results.files import read_results
    from eosin.results.tables import print_table
    from eosin.tasks import _plan
    from eosin.tasks._evaluate import Config, evaluate
    from eosin.tasks._explain import explain_all

    config = COMMAND.parse(Config, words)
    if config.plan:
        works = _plan.plan(config)
        return Outcome("\n".join(_plan.lines(works)), facts={"plan": _plan.facts(works)})
    results = evaluate(config)
    if config.why:
        said, facts = explain_all(config)
        return Outcome("\n".join(said), facts={"why": facts, "results": str(config.out)})
    if results and os.environ.get("RANK", "0") == "0":
        # To standard error: standard output is the outcome's, a line for machines with --json.
        print_table(compare_encoders(read_results(config.out)), console=Console(stderr=True))
    return Outcome(
        text=f"{len(results)} results are in {config.out}.\n"
        f"Next: eosin report {config.out} --out report, or eosin results verify {config.out}",
        facts={"results": str(config.out), "rows": len(results)},
    )


def _list() -> Outcome:
    from eosin.protocols._base import describe, find_protocol, protocol_names

    protocols = [find_protocol(name) for name in protocol_names()]
    return Outcome(
        text="\n\n".join("\n".join(describe(each)) for each in protocols),
        facts={"protocols": [each.name for each in protocols]},
    )


COMMAND = Command(
    name="evaluate",
    summary="Benchmark encoders on labelled images, by named protocols.",
    example="eosin evaluate runs/bt/encoder --on LABELLED --out results --protocol strict paper",
    run=_run,
)

"""`eosin reproduce`: a published study is run with what is at hand."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin.reproduce import Config, plan, run

    config = COMMAND.parse(Config, words)
    if config.plan:
        said, facts = plan(config)
        return Outcome("\n".join(said), facts)
    said, facts = run(config)
    lines = [*said, f"Next: eosin report {config.out} --out report"]
    return Outcome("\n".join(lines), {**facts, "results": str(config.out)})


COMMAND = Command(
    name="reproduce",
    summary="Run the study of Kang et al., CVPR 2023, with what is at hand.",
    example="eosin reproduce paper --plan",
    run=_run,
)

"""`eosin report`: results become a page."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin.report.html import Config, write_report

    paths = write_report(COMMAND.parse(Config, words))
    return Outcome(
        text=f"The report is {paths.html}, and as Markdown {paths.markdown}.",
        facts={"html": str(paths.html), "markdown": str(paths.markdown)},
    )


COMMAND = Command(
    name="report",
    summary="Write the comparison as a table and as one self-contained page.",
    example="eosin report results --out report",
    run=_run,
)

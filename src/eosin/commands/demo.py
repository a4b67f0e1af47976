"""`eosin demo`: the whole line in one command."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from rich.console import Console

    from eosin.demo import SYNTHETIC_NOTE, Config, run_demo
    from eosin.results.tables import print_table

    config = COMMAND.parse(Config, words)
    demo = run_demo(config)
    notes = (SYNTHETIC_NOTE,) if config.is_synthetic else ()
    print_table(demo.report.comparison, notes, Console(stderr=True))
    return Outcome(
        text=f"The demo took {demo.seconds:,.0f} s. Its report is {demo.report.html}.\n"
        f"Next: eosin tile --slides YOUR_SLIDES --out tiles",
        facts={
            "report": str(demo.report.html),
            "tiles": demo.tiling.tiles,
            "quarantined": {record.path: record.reason for record in demo.tiling.quarantined},
            "seconds": demo.seconds,
        },
        exit_code=demo.exit_code,
    )


COMMAND = Command(
    name="demo",
    summary="The whole line, from slides to a report, on synthetic or on your own slides.",
    example="eosin demo --out eosin-demo",
    run=_run,
)

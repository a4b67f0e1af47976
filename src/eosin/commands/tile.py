"""`eosin tile`: whole-slide images become a tile store."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin.tiling.plan import plan
    from eosin.tiling.run import Config, tile

    config = COMMAND.parse(Config, words)
    if config.plan:
        planned = plan(config)
        return Outcome(f"{planned}\nNext: the same command without --plan.", asdict(planned))
    report = tile(config)
    ways = "; ".join(report.ways)
    lines = [
        f"{report.tiles:,} tiles of {report.done + report.skipped:,} slides "
        f"({report.bytes / 1e6:,.1f} MB) are in {report.out}; this took {report.seconds:,.1f} s.",
        *([f"Resolutions: {ways}."] if ways else []),
        *(f"Note: {record.path}: {record.note}" for record in report.notes),
        *(f"Quarantined: {record.path}: {record.reason}" for record in report.quarantined),
        f"Next: eosin pretrain barlow_twins --data {report.out} --out runs/barlow_twins",
    ]
    facts = {
        "out": str(report.out),
        "tiles": report.tiles,
        "bytes": report.bytes,
        "done": report.done,
        "skipped": report.skipped,
        "ways": list(report.ways),
        "notes": {record.path: record.note for record in report.notes},
        "quarantined": {record.path: record.reason for record in report.quarantined},
        "seconds": report.seconds,
    }
    return Outcome("\n".join(lines), facts, report.exit_code)


COMMAND = Command(
    name="tile",
    summary="Cut whole-slide images into a tile store.",
    example="eosin tile --slides SLIDES --out tiles --mpp 0.5 --tile-px 512",
    run=_run,
)

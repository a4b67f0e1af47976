"""`eosin embed`: images become embeddings."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin.embeddings.embed import Config, embed_images
    from eosin.embeddings.measured_plan import plan_embedding

    config = COMMAND.parse(Config, words)
    if config.plan:
        planned = plan_embedding(config)
        return Outcome(f"{planned}\nNext: the same command without --plan.", asdict(planned))
    report = embed_images(config)
    where = ", ".join(map(str, report.files[:4])) + (", …" if len(report.files) > 4 else "")
    shown = list(report.unreadable.items())[:10]
    more = len(report.unreadable) - len(shown)
    read = str(report.out if config.layout == "matrix" else next(iter(report.files), report.out))
    lines = [
        f"{report.embeddings:,} embeddings of {report.embed_dim:,} values "
        f"({report.bytes / 1e6:,.1f} MB) are in {where}; {report.done:,} images were embedded now, "
        f"in {report.seconds:,.1f} s.",
        *(f"Unreadable: {name}: {reason}" for name, reason in shown),
        *([f"Unreadable: {more:,} more; see embed.json."] if more else []),
        f'Next: python -c "import eosin.embeddings as e; print(e.read({read!r}).rows)"',
    ]
    facts = {
        "out": str(report.out),
        "files": [str(path) for path in report.files],
        "embeddings": report.embeddings,
        "embed_dim": report.embed_dim,
        "bytes": report.bytes,
        "done": report.done,
        "unreadable": dict(report.unreadable),
        "seconds": report.seconds,
    }
    return Outcome("\n".join(lines), facts, report.exit_code)


COMMAND = Command(
    name="embed",
    summary="Embed tiles or images with an encoder, into one matrix or a file per slide.",
    example="eosin embed vit_small_patch16.lunit_dino --data tiles -o emb",
    run=_run,
)

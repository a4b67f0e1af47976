"""`eosin segment`: the nuclei of an image or a slide."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin.nuclei.segment import Config, segment

    config = COMMAND.parse(Config, words)
    written = segment(config)
    files = [str(path) for path in written.files]
    return Outcome(
        text=f"{written.nuclei:,} nuclei are in {', '.join(files)}.\n"
        f"Next: drag {files[0]} onto the image in QuPath.",
        facts={"nuclei": written.nuclei, "files": files},
    )


COMMAND = Command(
    name="segment",
    summary="Find, outline and type the nuclei of an image or a slide.",
    example="eosin segment results/models/<row> slide.svs -o nuclei.geojson",
    run=_run,
)

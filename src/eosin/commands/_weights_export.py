"""`eosin weights export` and `push`: encoders handed on, on disk and on the Hugging Face Hub."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome


def _export(words: list[str]) -> Outcome:
    from eosin.weights.sharing import Config, export

    report = export(EXPORT.parse(Config, words))
    following = f"Next: eosin weights push {report.out} --repo OWNER/NAME shows what would be sent"
    return Outcome(f"{report}\n{following}", asdict(report))


def _push(words: list[str]) -> Outcome:
    from eosin.weights.push import Config, push

    config = PUSH.parse(Config, words)
    upload = push(config)
    if upload.url:
        return Outcome(
            f"{upload}\nUploaded: {upload.url}\n"
            f'Next: eosin.load_encoder("hf-hub:{upload.repo}", download=True)',
            upload.facts(),
        )
    flags = "--licence-allows-sharing --yes" if upload.needs_statement else "--yes"
    return Outcome(f"{upload}\nNothing was uploaded; {flags} does it.", upload.facts(), exit_code=2)


EXPORT = Command(
    name="weights export",
    summary="Write an encoder with its model card so that timm loads it, and as ONNX.",
    example="eosin weights export runs/bt -o shared/bt --onnx",
    run=_export,
)
PUSH = Command(
    name="weights push",
    summary="Upload an export to the Hugging Face Hub; without --yes, show what would be sent.",
    example="eosin weights push shared/bt --repo OWNER/NAME --private --yes",
    run=_push,
)

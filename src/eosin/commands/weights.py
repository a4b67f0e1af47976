"""`eosin weights`: the released encoders and where their files belong."""

from eosin.commands._base import Command, Outcome
from eosin.errors import UsageError


def _run(words: list[str]) -> Outcome:
    from eosin.weights import LICENCE, RELEASE_URL, list_released, weights_folder

    if words != ["list"]:
        raise UsageError("usage: eosin weights list")
    rows = list_released()
    lines = [f"  {name:<28} {file:<36} {state}" for name, file, state in rows]
    return Outcome(
        text="\n".join([f"Files in {weights_folder()} from {RELEASE_URL} ({LICENCE}):", *lines]),
        facts={"weights": [dict(zip(("name", "file", "state"), row, strict=True)) for row in rows]},
    )


COMMAND = Command(
    name="weights",
    summary="List the released encoders and where their files belong.",
    example="eosin weights list",
    run=_run,
)

"""`eosin views`: a picture of what an encoder sees of tiles in pre-training."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome
from eosin.commands._recipe import parse_partly, with_method
from eosin.errors import UsageError


def _run(words: list[str]) -> Outcome:
    from eosin.images import presets
    from eosin.pretrain.show_views import Config, show_views

    config, rest = parse_partly(COMMAND, Config, words)
    if "/" in config.recipe:
        if rest:
            raise UsageError(f"{rest[0]} does not go with views as published; name a method.")
        sheet = show_views(config, presets.load(config.recipe))
        return Outcome(str(sheet), asdict(sheet), int(bool(sheet.unreadable)))
    sheet = show_views(config, with_method(COMMAND, config.recipe, rest).views())
    return Outcome(
        f"{sheet}\nNext: eosin pretrain {config.recipe} --data {config.data}",
        asdict(sheet),
        int(bool(sheet.unreadable)),
    )


COMMAND = Command(
    name="views",
    summary="Draw the views that a recipe makes of tiles, with what was done to each.",
    example="eosin views tiles --recipe dino --method.views pathology -o views.png",
    run=_run,
)

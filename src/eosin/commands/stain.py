"""`eosin stain`: what stains a store has, fitted and looked at."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome, group


def _fit(words: list[str]) -> Outcome:
    from eosin.pretrain.fit_stain import Config, fit_stain

    report = fit_stain(FIT.parse(Config, words))
    return Outcome(f"{report}\nNext: {report.next_command}", asdict(report))


def _show(words: list[str]) -> Outcome:
    from eosin.pretrain.show_stain import Config, show_stain

    report = show_stain(SHOW.parse(Config, words))
    return Outcome(str(report), asdict(report))


FIT = Command(
    name="stain fit",
    summary="Measure how the stains of stores vary, for augmentation to draw from.",
    example="eosin stain fit tiles -o stain.json",
    run=_fit,
)
SHOW = Command(
    name="stain show",
    summary="Draw a tile beside what stain augmentation makes of it.",
    example="eosin stain show tiles --stain stain.json -o sheet.png",
    run=_show,
)
COMMAND = group(
    "stain",
    "Measure how stains vary over tiles, and see what augmentation makes of it.",
    FIT.example,
    [FIT, SHOW],
)

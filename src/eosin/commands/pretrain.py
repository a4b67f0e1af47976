"""`eosin pretrain`: a recipe's settings, changed by what is typed, become a run."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin import recipes
    from eosin.pretrain.config import Config
    from eosin.pretrain.run import plan_pretraining, pretrain_encoder

    if not words or words[0].startswith("-"):
        return Outcome(_recipes(), exit_code=0 if words[:1] in (["-h"], ["--help"]) else 2)
    config = COMMAND.parse(Config, words[1:], default=recipes.load(words[0]))
    if config.plan:
        text = plan_pretraining(config)
        return Outcome(text, facts={"plan": text.splitlines()})
    folder = pretrain_encoder(config)
    return Outcome(
        text=f"The encoder is in {folder}.\n"
        f'It loads with timm.create_model("local-dir:{folder}", pretrained=True).\n'
        f"Next: eosin evaluate {folder} --on DATASET --out results",
        facts={"encoder": str(folder)},
    )


def _recipes() -> str:
    from eosin import recipes

    return "\n".join(
        [
            "usage: eosin pretrain RECIPE --data DATA... [OPTIONS]",
            f"Example: {COMMAND.example}",
            "",
            "recipes (eosin pretrain RECIPE --help lists the options):",
            *(f"  {name:<26} {recipes.summary(name)}" for name in recipes.names()),
        ]
    )


COMMAND = Command(
    name="pretrain",
    summary="Pre-train an encoder on tiles without labels.",
    example="eosin pretrain barlow_twins_resnet50 --data tiles --out runs/bt",
    run=_run,
)

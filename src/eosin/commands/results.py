"""`eosin results`: results are verified."""

from eosin.commands._base import Command, Outcome, group


def _verify(words: list[str]) -> Outcome:
    from eosin.results.verify import Config, verify

    config = VERIFY.parse(Config, words)
    verified = verify(config)
    counted = f"{verified.rows:,} row{'' if verified.rows == 1 else 's'} in {config.folder}"
    said = f"{counted}: every figure is what the stored predictions give."
    if verified.deviations:
        said = "\n".join([*verified.deviations, f"{counted}: {len(verified.deviations)} wrong."])
    return Outcome(
        text=said,
        facts={"rows": verified.rows, "deviations": list(verified.deviations)},
        exit_code=1 if verified.deviations else 0,
    )


VERIFY = Command(
    name="results verify",
    summary="Recompute every metric from the stored predictions, and look for missing files.",
    example="eosin results verify results",
    run=_verify,
)
COMMAND = group("results", "Verify what was measured.", VERIFY.example, [VERIFY])

"""`eosin datasets`: labelled data sets are listed, described, fetched and verified."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome, group


def _list(words: list[str]) -> Outcome:
    from eosin.datasets import _catalogue

    root = LIST.parse(_catalogue.ListConfig, words).root
    return Outcome(
        "\n".join([*_catalogue.lines_of_list(root), "Next: eosin datasets info NAME"]),
        {"datasets": _catalogue.list_datasets(root)},
    )


def _info(words: list[str]) -> Outcome:
    from eosin.datasets import _catalogue

    config = INFO.parse(_catalogue.InfoConfig, words)
    facts = _catalogue.describe(config.name, config.root)
    return Outcome("\n".join(_catalogue.lines_of(facts)), facts)


def _get(words: list[str]) -> Outcome:
    from eosin.datasets._getting import Config, get

    got = get(GET.parse(Config, words))
    facts = {**asdict(got), "root": str(got.root)}
    if got.state == "by hand":
        steps = [f"  {number}. {step}" for number, step in enumerate(got.steps, start=1)]
        said = [f"{got.name} cannot be fetched for you. What to do:", *steps]
        said.append(f"Then: eosin datasets verify {got.name}")
        return Outcome("\n".join(said), facts, exit_code=1)
    what = {
        "present": "was there already",
        "fetched": "is fetched, verified and unpacked",
        "unpacked": "is verified and unpacked",
    }[got.state]
    return Outcome(
        f"{got.name} {what}: {got.root}\nNext: eosin datasets verify {got.name}; then eosin "
        f"evaluate ENCODER --on {got.name} --out results",
        facts,
    )


def _verify(words: list[str]) -> Outcome:
    from eosin.datasets import _checking

    verified = _checking.verify(VERIFY.parse(_checking.Config, words))
    facts = {**asdict(verified), "root": str(verified.root)}
    exit_code = 1 if verified.findings else 0
    return Outcome("\n".join(_checking.lines_of(verified)), facts, exit_code=exit_code)


LIST = Command(
    name="datasets list",
    summary="List the data sets: which are installed, where, how large, under which licence.",
    example="eosin datasets list --root /data",
    run=_list,
)
INFO = Command(
    name="datasets info",
    summary="Tell all about one: classes, counts, division, groups, licence, how to get it.",
    example="eosin datasets info bach",
    run=_info,
)
GET = Command(
    name="datasets get",
    summary="Fetch one, verify it and unpack it; or say how to ask for it.",
    example="eosin datasets get patch_camelyon",
    run=_get,
)
VERIFY = Command(
    name="datasets verify",
    summary="Compare one with what is published: counts, sizes, damage, copies, groups.",
    example="eosin datasets verify mhist",
    run=_verify,
)
_GROUP = group(
    "datasets",
    "List, describe, fetch and verify labelled data sets.",
    "eosin datasets get crc",
    [LIST, INFO, GET, VERIFY],
)


def _run(words: list[str]) -> Outcome:
    """Lists where no word follows, since that is what most come for."""
    first = words[0] if words else "list"
    if first.startswith("--") and first != "--help":
        return _list(words)
    return _GROUP.run(words or ["list"])


COMMAND = Command(
    name=_GROUP.name,
    summary=_GROUP.summary,
    example=_GROUP.example,
    run=_run,
    below=_GROUP.below,
)

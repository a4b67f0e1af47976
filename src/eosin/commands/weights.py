"""`eosin weights`: encoders are listed, described, fetched, imported, exported and shared."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from eosin.commands._base import Command, Outcome, group
from eosin.commands._weights_export import EXPORT, PUSH

if TYPE_CHECKING:
    from eosin.weights.released import Obtained


def _list(words: list[str]) -> Outcome:
    from eosin.weights import listing

    LIST.parse(listing.ListConfig, words)
    return Outcome(
        "\n".join([*listing.lines_of_list(), "Next: eosin weights info NAME"]),
        {"weights": listing.list_released(), "others": listing.list_others()},
    )


def _info(words: list[str]) -> Outcome:
    from eosin.weights import listing

    facts = listing.describe(INFO.parse(listing.InfoConfig, words).name)
    return Outcome("\n".join(listing.lines_of(facts)), facts)


def _get(words: list[str]) -> Outcome:
    from eosin.weights.getting import Config, get

    config = GET.parse(Config, words)
    found = get(config)
    if isinstance(found, str):
        return Outcome(f"{config.name} is in {found}.", {"name": config.name, "path": found})
    return _outcome(found)


def _import(words: list[str]) -> Outcome:
    from eosin.weights.importing import Config, import_file

    return _outcome(import_file(IMPORT.parse(Config, words)))


def _outcome(obtained: "Obtained") -> Outcome:
    how = {"present": "was there already", "downloaded": "is downloaded", "imported": "is copied"}
    lines = [
        f"{obtained.name} {how[obtained.origin]} and verified: {obtained.path}",
        f"sha256 {obtained.sha256} ({obtained.checksum})",
        *([obtained.note] if obtained.note else []),
        f"Next: eosin evaluate {obtained.name} --on LABELLED --out results",
    ]
    return Outcome("\n".join(lines), {**asdict(obtained), "path": str(obtained.path)})


LIST = Command(
    name="weights list",
    summary="List the released encoders, which of them are here, and those of others.",
    example="eosin weights list",
    run=_list,
)
INFO = Command(
    name="weights info",
    summary="Tell all about one: architecture, normalisation, licence, checksum, how to load it.",
    example="eosin weights info vit_small_patch16.lunit_dino",
    run=_info,
)
GET = Command(
    name="weights get",
    summary="Download one, verify it and keep it; the only command that fetches weights.",
    example="eosin weights get vit_small_patch16.lunit_dino --accept-licence",
    run=_get,
)
IMPORT = Command(
    name="weights import",
    summary="Verify a released file that is here already and keep it; no network is needed.",
    example="eosin weights import bt_rn50_ep200.torch --accept-licence",
    run=_import,
)
COMMAND = group(
    "weights",
    "List, describe, fetch, import, export and share the weights of encoders.",
    LIST.example,
    [LIST, INFO, GET, IMPORT, EXPORT, PUSH],
)

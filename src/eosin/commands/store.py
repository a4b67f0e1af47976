"""`eosin store`: tile stores are checked, looked at, merged and exported."""

from dataclasses import asdict

from eosin.commands._base import Command, Outcome, group


def _verify(words: list[str]) -> Outcome:
    from eosin.store.verify import Config, verify_stores

    found = verify_stores(VERIFY.parse(Config, words))
    facts = {"stores": [asdict(each) for each in found]}
    return Outcome("\n".join(map(str, found)), facts, int(any(each.problems for each in found)))


def _show(words: list[str]) -> Outcome:
    from eosin.store.contact_sheet import Config, show

    sheet = show(SHOW.parse(Config, words))
    return Outcome(str(sheet), asdict(sheet), int(bool(sheet.unreadable)))


def _merge(words: list[str]) -> Outcome:
    from eosin.store.merge import Config, merge

    report = merge(MERGE.parse(Config, words))
    return Outcome(f"{report}\nNext: eosin store verify {report.out}", asdict(report))


def _export(words: list[str]) -> Outcome:
    from eosin.store.export import Config, export

    report = export(EXPORT.parse(Config, words))
    return Outcome(f"{report}\nNext: {report.next_command}", asdict(report))


VERIFY = Command(
    name="store verify",
    summary="Check every offset, length, checksum and count of stores, and decode every tile.",
    example="eosin store verify tiles",
    run=_verify,
)
SHOW = Command(
    name="store show",
    summary="Draw a contact sheet of tiles, at random or along a score.",
    example="eosin store show tiles -o sheet.png --sort blur",
    run=_show,
)
MERGE = Command(
    name="store merge",
    summary="Put the slides of several stores into one, by hard links where the disk has them.",
    example="eosin store merge tiles-a tiles-b --out tiles",
    run=_merge,
)
EXPORT = Command(
    name="store export",
    summary="Copy tiles into mixed WebDataset shards, or into a folder per slide; also to a URL.",
    example="eosin store export tiles --out s3://bucket/tiles --where 'blur>1000' 'ink<0.1'",
    run=_export,
)
COMMAND = group(
    "store",
    "Check, look at, merge and export tile stores.",
    VERIFY.example,
    [VERIFY, SHOW, MERGE, EXPORT],
)

"""The commands of `eosin`: what is typed becomes a config, and what comes out is printed."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from eosin import __version__
from eosin.errors import InputError, UsageError

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Outcome:
    """What a command has to say when it is done."""

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    exit_code: int = 0


@dataclass(frozen=True)
class Command:
    """One command: what it is for, an example, and what runs it."""

    summary: str
    example: str
    run: Callable[[list[str]], Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0 done, 1 failed, 2 wrong usage, 3 done with quarantined input, 4 interrupted and resumable.
    """
    # Idle threads of PyTorch would otherwise spin, which is six times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    wants_json = "--json" in words
    words = [word for word in words if word != "--json"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"eosin {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        print(f"eosin: there is no command {name!r}; see eosin --help", file=sys.stderr)
        return 2
    try:
        outcome = COMMANDS[name].run(rest)
    except InputError as error:
        print(f"eosin {name}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # A full disk or a missing permission; what was written before is whole.
        print(f"eosin {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"eosin {name}: stopped; the same command resumes.", file=sys.stderr)
        return 4
    print(json.dumps(outcome.facts) if wants_json else outcome.text)
    return outcome.exit_code


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "eosin: self-supervised learning for computational pathology",
            "",
            "usage: eosin COMMAND [OPTIONS]; eosin COMMAND --help explains one",
            "",
            *lines,
            "",
            "--json prints a command's outcome for machines.",
        ]
    )


def _parse(
    config: type[ConfigT], name: str, words: list[str], default: ConfigT | None = None
) -> ConfigT:
    """Turns words into a config; its fields and their descriptions are the options."""
    import tyro

    command = COMMANDS[name] if name in COMMANDS else STORE_COMMANDS[name]
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        config if default is None else type(default),
        prog=f"eosin {name}",
        description=f"{command.summary}\n\nExample: {command.example}",
        args=words,
        **given,
    )


def _tile(words: list[str]) -> Outcome:
    from eosin.tiling.plan import plan
    from eosin.tiling.run import Config, tile

    config = _parse(Config, "tile", words)
    if config.plan:
        planned = plan(config)
        return Outcome(f"{planned}\nNext: the same command without --plan.", asdict(planned))
    report = tile(config)
    ways = "; ".join(report.ways)
    lines = [
        f"{report.tiles:,} tiles of {report.done + report.skipped:,} slides "
        f"({report.bytes / 1e6:,.1f} MB) are in {report.out}; this took {report.seconds:,.1f} s.",
        *([f"Resolutions: {ways}."] if ways else []),
        *(f"Note: {record.path}: {record.note}" for record in report.notes),
        *(f"Quarantined: {record.path}: {record.reason}" for record in report.quarantined),
        f"Next: eosin pretrain barlow_twins --data {report.out} --out runs/barlow_twins",
    ]
    facts = {
        "out": str(report.out),
        "tiles": report.tiles,
        "bytes": report.bytes,
        "done": report.done,
        "skipped": report.skipped,
        "ways": list(report.ways),
        "notes": {record.path: record.note for record in report.notes},
        "quarantined": {record.path: record.reason for record in report.quarantined},
        "seconds": report.seconds,
    }
    return Outcome("\n".join(lines), facts, report.exit_code)


def _store(words: list[str]) -> Outcome:
    name = f"store {words[0]}" if words else "store --help"
    if name in STORE_COMMANDS:
        return STORE_COMMANDS[name].run(words[1:])
    if name not in ("store --help", "store -h"):
        raise UsageError(f"there is no {name!r}; see eosin store --help")
    lines = [
        "usage: eosin store WORD [OPTIONS]; eosin store WORD --help explains one",
        f"Example: {COMMANDS['store'].example}",
        "",
        *(f"  {name:<13}  {command.summary}" for name, command in STORE_COMMANDS.items()),
    ]
    return Outcome("\n".join(lines), exit_code=0 if words else 2)


def _store_verify(words: list[str]) -> Outcome:
    from eosin.store.verify import Config, verify_stores

    found = verify_stores(_parse(Config, "store verify", words))
    facts = {"stores": [asdict(each) for each in found]}
    return Outcome("\n".join(map(str, found)), facts, int(any(each.problems for each in found)))


def _store_show(words: list[str]) -> Outcome:
    from eosin.store.contact_sheet import Config, show

    sheet = show(_parse(Config, "store show", words))
    return Outcome(str(sheet), asdict(sheet), int(bool(sheet.unreadable)))


def _store_merge(words: list[str]) -> Outcome:
    from eosin.store.merge import Config, merge

    report = merge(_parse(Config, "store merge", words))
    return Outcome(f"{report}\nNext: eosin store verify {report.out}", asdict(report))


def _store_export(words: list[str]) -> Outcome:
    from eosin.store.export import Config, export

    report = export(_parse(Config, "store export", words))
    return Outcome(f"{report}\nNext: {report.next_command}", asdict(report))


def _pretrain(words: list[str]) -> Outcome:
    from eosin import recipes
    from eosin.pretrain.run import Config, pretrain_encoder

    if not words or words[0].startswith("-"):
        listed = [f"  {name:<26} {recipes.summary(name)}" for name in recipes.names()]
        text = "\n".join(
            [
                "usage: eosin pretrain RECIPE --data DATA... [OPTIONS]",
                f"Example: {COMMANDS['pretrain'].example}",
                "",
                "recipes (eosin pretrain RECIPE --help lists the options):",
                *listed,
            ]
        )
        return Outcome(text=text, exit_code=0 if words[:1] in (["-h"], ["--help"]) else 2)
    config = _parse(Config, "pretrain", words[1:], default=recipes.load(words[0]))
    folder = pretrain_encoder(config)
    return Outcome(
        text=f"The encoder is in {folder}.\n"
        f'It loads with timm.create_model("local-dir:{folder}", pretrained=True).\n'
        f"Next: eosin evaluate {folder} --on DATASET --out results",
        facts={"encoder": str(folder)},
    )


def _evaluate(words: list[str]) -> Outcome:
    from rich.console import Console

    from eosin.results.comparison import compare_encoders
    from eosin.results.files import read_results
    from eosin.results.tables import print_table
    from eosin.tasks._evaluate import Config, evaluate

    config = _parse(Config, "evaluate", words)
    results = evaluate(config)
    # To standard error: standard output is the outcome's, which --json makes a line for machines.
    print_table(compare_encoders(read_results(config.out)), console=Console(stderr=True))
    return Outcome(
        text=f"{len(results)} results are in {config.out}.\n"
        f"Next: eosin report {config.out} --out report",
        facts={"results": str(config.out), "rows": len(results)},
    )


def _report(words: list[str]) -> Outcome:
    from eosin.report.html import Config, write_report

    paths = write_report(_parse(Config, "report", words))
    return Outcome(
        text=f"The report is {paths.html}, and as Markdown {paths.markdown}.",
        facts={"html": str(paths.html), "markdown": str(paths.markdown)},
    )


def _weights(words: list[str]) -> Outcome:
    from eosin.weights import LICENCE, RELEASE_URL, list_released, weights_folder

    if words != ["list"]:
        raise UsageError("usage: eosin weights list")
    rows = list_released()
    lines = [f"  {name:<28} {file:<36} {state}" for name, file, state in rows]
    return Outcome(
        text="\n".join([f"Files in {weights_folder()} from {RELEASE_URL} ({LICENCE}):", *lines]),
        facts={"weights": [dict(zip(("name", "file", "state"), row, strict=True)) for row in rows]},
    )


def _demo(words: list[str]) -> Outcome:
    from rich.console import Console

    from eosin.demo import SYNTHETIC_NOTE, Config, run_demo
    from eosin.results.tables import print_table

    config = _parse(Config, "demo", words)
    demo = run_demo(config)
    notes = (SYNTHETIC_NOTE,) if config.is_synthetic else ()
    print_table(demo.report.comparison, notes, Console(stderr=True))
    return Outcome(
        text=f"The demo took {demo.seconds:,.0f} s. Its report is {demo.report.html}.\n"
        f"Next: eosin tile --slides YOUR_SLIDES --out tiles",
        facts={
            "report": str(demo.report.html),
            "tiles": demo.tiling.tiles,
            "quarantined": {record.path: record.reason for record in demo.tiling.quarantined},
            "seconds": demo.seconds,
        },
        exit_code=demo.exit_code,
    )


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "The whole line, from slides to a report, on synthetic or on your own slides.",
        "eosin demo --out eosin-demo",
        _demo,
    ),
    "tile": Command(
        "Cut whole-slide images into a tile store.",
        "eosin tile --slides SLIDES --out tiles --mpp 0.5 --tile-px 512",
        _tile,
    ),
    "store": Command(
        "Check, look at, merge and export tile stores.",
        "eosin store verify tiles",
        _store,
    ),
    "pretrain": Command(
        "Pre-train an encoder on tiles without labels.",
        "eosin pretrain barlow_twins_resnet50 --data tiles --out runs/bt",
        _pretrain,
    ),
    "evaluate": Command(
        "Benchmark encoders on labelled images with linear probe and kNN.",
        "eosin evaluate runs/bt/encoder --on LABELLED --out results",
        _evaluate,
    ),
    "report": Command(
        "Write the comparison as a table and as one self-contained page.",
        "eosin report results --out report",
        _report,
    ),
    "weights": Command(
        "List the released encoders and where their files belong.",
        "eosin weights list",
        _weights,
    ),
}

STORE_COMMANDS: dict[str, Command] = {
    "store verify": Command(
        "Check every offset, length, checksum and count of stores, and decode every tile.",
        "eosin store verify tiles",
        _store_verify,
    ),
    "store show": Command(
        "Draw a contact sheet of tiles, at random or along a score.",
        "eosin store show tiles -o sheet.png --sort blur",
        _store_show,
    ),
    "store merge": Command(
        "Put the slides of several stores into one, by hard links where the disk has them.",
        "eosin store merge tiles-a tiles-b --out tiles",
        _store_merge,
    ),
    "store export": Command(
        "Copy tiles into mixed WebDataset shards, or into a folder per slide; also to a URL.",
        "eosin store export tiles --out s3://bucket/tiles --where 'blur>1000' 'ink<0.1'",
        _store_export,
    ),
}

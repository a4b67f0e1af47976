"""The command line: finds the command that is typed, runs it, and prints what comes out."""

import json
import os
import sys
from collections.abc import Sequence

from eosin import __version__
from eosin.commands import (
    audit,
    bench_data,
    datasets,
    demo,
    embed,
    evaluate,
    pretrain,
    report,
    reproduce,
    results,
    segment,
    stain,
    store,
    tile,
    views,
    weights,
)
from eosin.commands._base import Command, listing
from eosin.errors import Diverged, InputError, Interrupted, UsageError

# In the order of work, which is that of the overview.
_MODULES = (
    *(demo, tile, store, stain, views, bench_data, pretrain),
    *(embed, evaluate, segment, report, results, audit, reproduce, datasets, weights),
)
COMMANDS: dict[str, Command] = {module.COMMAND.name: module.COMMAND for module in _MODULES}


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
        # Of processes that torchrun started and that stopped together, one tells why.
        is_shared = isinstance(error, Diverged | Interrupted | UsageError)
        if os.environ.get("RANK", "0") == "0" or not is_shared:
            print(f"eosin {name}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # A full disk or a missing permission; what was written before is whole.
        print(f"eosin {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"eosin {name}: stopped; the same command resumes.", file=sys.stderr)
        return 4
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(outcome.facts) if wants_json else outcome.text)
    return outcome.exit_code


def _overview() -> str:
    return "\n".join(
        [
            "eosin: self-supervised learning for computational pathology",
            "",
            "usage: eosin COMMAND [OPTIONS]; eosin COMMAND --help explains one",
            "",
            *listing(list(COMMANDS.values())),
            "",
            "--json prints a command's outcome for machines.",
        ]
    )

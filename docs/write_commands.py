"""Writes docs/commands.md from the commands' own help: `make docs`."""

import contextlib
import io
import os
from pathlib import Path

os.environ["COLUMNS"] = "100"

from eosin.cli import COMMANDS, main


def help_of(words: list[str]) -> str:
    """What a command prints for --help."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def write(path: Path) -> None:
    """Writes the page of all commands."""
    parts = ["# Commands", "", "Made by `make docs` from the commands' own help.", ""]
    commands = [[name] for name in COMMANDS]
    below = [each.name.split() for command in COMMANDS.values() for each in command.below]
    for words in ([], *commands, *below, ["pretrain", "dino"]):
        parts += [f"## eosin {' '.join(words)}".rstrip(), "", "```text", help_of(words), "```", ""]
    path.write_text("\n".join(parts))


if __name__ == "__main__":
    write(Path(__file__).parent / "commands.md")

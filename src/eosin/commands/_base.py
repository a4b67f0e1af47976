"""What every command is made of: its help, its options, and what it says at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from eosin.errors import UsageError

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Outcome:
    """What a command has to say when it is done.

    Attributes:
        text: for people.
        facts: for machines; plain values that JSON has.
        exit_code: as in `eosin.cli.main`.
    """

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: what it is for, an example, and what runs it.

    Attributes:
        name: as it is typed, such as `tile` or `store verify`.
        summary: its line in the overview.
        example: a whole command line.
        run: takes the words typed after the name.
        below: the commands that a word after the name chooses from.
    """

    name: str
    summary: str
    example: str
    run: Callable[[list[str]], Outcome]
    below: tuple["Command", ...] = ()

    def parse(
        self, config: type[ConfigT], words: list[str], default: ConfigT | None = None
    ) -> ConfigT:
        """Turns words into a config; its fields and their descriptions are the options.

        Args:
            config: the config's type.
            words: as typed after the command's name.
            default: values of the options that are not given, and the type to use instead.
        """
        import tyro

        given: dict[str, Any] = {} if default is None else {"default": default}
        return tyro.cli(
            config if default is None else type(default),
            prog=f"eosin {self.name}",
            description=f"{self.summary}\n\nExample: {self.example}",
            args=words,
            **given,
        )


def group(name: str, summary: str, example: str, below: Sequence[Command]) -> Command:
    """Makes a command of which the first word chooses one of those below it."""
    commands = {command.name: command for command in below}

    def run(words: list[str]) -> Outcome:
        chosen = f"{name} {words[0]}" if words else f"{name} --help"
        if chosen in commands:
            return commands[chosen].run(words[1:])
        if chosen not in (f"{name} --help", f"{name} -h"):
            raise UsageError(f"there is no {chosen!r}; see eosin {name} --help")
        lines = [
            f"usage: eosin {name} WORD [OPTIONS]; eosin {name} WORD --help explains one",
            f"Example: {example}",
            "",
            *listing(below),
        ]
        return Outcome("\n".join(lines), exit_code=0 if words else 2)

    return Command(name=name, summary=summary, example=example, run=run, below=tuple(below))


def listing(commands: Sequence[Command]) -> list[str]:
    """Gives a line for each command: its name and what it is for."""
    width = max(len(command.name) for command in commands)
    return [f"  {command.name:<{width}}   {command.summary}" for command in commands]

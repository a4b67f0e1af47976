"""Options of a recipe's method for commands that look at a recipe without running it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from eosin.commands._base import Command

if TYPE_CHECKING:
    from eosin.pretrain.config import Config as PretrainConfig


class _NamesRecipe(Protocol):
    @property
    def recipe(self) -> str: ...


ConfigT = TypeVar("ConfigT", bound=_NamesRecipe)


def parse_with_recipe(
    command: Command, config: type[ConfigT], words: list[str]
) -> tuple[ConfigT, "PretrainConfig"]:
    """Parses a command's options, and what is left of them as options of its recipe's method.

    Args:
        command: whose words they are.
        config: its options; `recipe` names the recipe.
        words: as typed after the command's name, also `--method.…` as `eosin pretrain` takes them.

    Raises:
        UsageError: there is no such recipe.
    """
    parsed, rest = parse_partly(command, config, words)
    return parsed, with_method(command, parsed.recipe, rest)


def parse_partly(
    command: Command, config: type[ConfigT], words: list[str]
) -> tuple[ConfigT, list[str]]:
    """Parses a command's options, and gives the words that are none of them."""
    import tyro

    parsed, rest = tyro.cli(
        config,
        prog=f"eosin {command.name}",
        description=f"{command.summary}\n\nExample: {command.example}\n\n"
        "Options of the method (--method.…) as for `eosin pretrain`.",
        args=words,
        return_unknown_args=True,
    )
    return parsed, list(rest)


def with_method(command: Command, recipe: str, words: list[str]) -> "PretrainConfig":
    """Loads a recipe by name, with the options of its method that `words` give."""
    from eosin import recipes
    from eosin.methods._base import MethodConfig

    @dataclass(frozen=True)
    class Changed:
        method: MethodConfig

    loaded = recipes.load(recipe)
    changed = command.parse(Changed, words, default=Changed(loaded.method))
    return replace(loaded, method=changed.method)

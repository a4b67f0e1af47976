"""The parts that all commands are made of."""

from dataclasses import dataclass

import pytest

from eosin.commands._base import Command, Outcome, group, listing
from eosin.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to count."""

    count: int = 3
    """How many to count."""


def _count(words: list[str]) -> Outcome:
    return Outcome("counted", {"count": COUNT.parse(Config, words).count})


COUNT = Command(name="n count", summary="Count.", example="eosin n count", run=_count)
NAME = Command(name="n n", summary="Name.", example="eosin n n", run=lambda words: Outcome("named"))
NUMBERS = group("n", "Numbers.", COUNT.example, [COUNT, NAME])


def test_words_become_a_config_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert COUNT.run(["--count", "5"]).facts == {"count": 5}
    assert COUNT.parse(Config, [], default=Config(count=8)) == Config(count=8)
    with pytest.raises(SystemExit):
        COUNT.run(["--help"])
    text = capsys.readouterr().out
    assert all(part in text for part in ("eosin n count", "Count.", "Example:", "How many to"))


def test_a_word_chooses_a_command_below() -> None:
    assert NUMBERS.run(["count", "--count", "2"]).facts == {"count": 2}
    assert NUMBERS.run(["n"]).text == "named"
    assert NUMBERS.below == (COUNT, NAME)


@pytest.mark.parametrize(("words", "exit_code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_help_of_a_group_lists_what_is_below(words: list[str], exit_code: int) -> None:
    outcome = NUMBERS.run(words)
    assert outcome.exit_code == exit_code
    assert outcome.text.splitlines() == [
        "usage: eosin n WORD [OPTIONS]; eosin n WORD --help explains one",
        "Example: eosin n count",
        "",
        "  n count   Count.",
        "  n n       Name.",
    ]
    assert listing(NUMBERS.below) == outcome.text.splitlines()[-2:]


def test_a_word_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no 'n guess'; see eosin n --help"):
        NUMBERS.run(["guess"])

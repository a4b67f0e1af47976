import numpy as np
import pytest

from eosin.errors import InputError, UsageError
from eosin.store.conditions import Condition, choose, parse


class Tiles:
    """Five tiles with two scores."""

    def __len__(self) -> int:
        return 5

    def __str__(self) -> str:
        return "tiles"

    def column(self, name: str) -> np.ndarray:
        scores = {"blur": [0, 10, 20, 30, 40], "ink": [0.5, 0.0, 0.0, 0.2, 0.0]}
        return np.array(scores[name], np.float32)


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["blur>20"], [3, 4]),
        (["blur >= 20"], [2, 3, 4]),
        (["blur<20"], [0, 1]),
        (["blur<=2e1"], [0, 1, 2]),
        (["blur>5", "ink<0.1"], [1, 2, 4]),
    ],
)
def test_tiles_that_meet_all_conditions_are_chosen(texts: list[str], numbers: list[int]) -> None:
    assert choose(Tiles(), parse(texts)).tolist() == numbers


def test_no_tile_left_is_an_error() -> None:
    with pytest.raises(InputError, match="tiles has no tiles with blur>5 and blur<4; loosen"):
        choose(Tiles(), parse(["blur>5", "blur<4"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blur", "is not NAME<VALUE"),
        ("blur=3", "is not NAME<VALUE"),
        ("blur>", "is not NAME<VALUE"),
        ("sharpness>3", "tiles have no sharpness; they have x, y,"),
        ("offset>3", "tiles have no offset"),
        ("blur>three", "three is not a number"),
        ("blur>nan", "nan is not a number"),
        ("__import__('os')>3", "is not NAME<VALUE"),
    ],
)
def test_what_is_no_condition_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse([text])


def test_a_condition_is_said_as_it_was_typed() -> None:
    assert str(Condition("ink", "<", 0.1)) == "ink<0.1"

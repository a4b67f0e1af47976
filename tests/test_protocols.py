import pytest

from eosin.errors import UsageError
from eosin.protocols import find_protocol


def test_strict_is_what_version_1_was() -> None:
    strict = find_protocol("strict")
    assert (strict.name, strict.version, strict.folds) == ("strict", 1, 5)
    assert strict.linear_cs == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    assert strict.knn_ks == (1, 3, 5, 10, 20, 50)
    assert (strict.knn_is_centred, strict.knn_temperature) == (True, 0.07)
    assert strict.linear_max_iterations == 1000


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="choose one of: strict"):
        find_protocol("lenient")

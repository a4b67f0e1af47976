from dataclasses import FrozenInstanceError

import pytest

from eosin import plugins
from eosin.errors import UsageError
from eosin.protocols._base import find_protocol, protocol_names
from eosin.results.statistics import METRICS

NAMES = (
    "dinov2-linear",
    "dinov2-logreg",
    "eva-2025-03",
    "hovernet-official",
    "nuclei-short",
    "paper",
    "strict",
    "thunder-0.2",
    "uni-linear",
)


def test_the_protocols() -> None:
    assert protocol_names() == sorted(NAMES)


@pytest.mark.parametrize("module", plugins.names("protocols"))
def test_a_protocol_says_where_it_is_from_and_cannot_be_changed(module: str) -> None:
    protocol = plugins.load("protocols", module).PROTOCOL
    assert find_protocol(protocol.name) is protocol
    assert protocol.source and protocol.version >= 1 and protocol.metric in METRICS
    assert protocol.tasks
    with pytest.raises(FrozenInstanceError):
        protocol.version = 2


@pytest.mark.parametrize("name", ["lenient", "thunder_0_2", "_base", ""])
def test_an_unknown_protocol_lists_those_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=r"strict.*uni-linear"):
        find_protocol(name)


def test_what_the_paper_does_not_tell_is_marked_as_ours() -> None:
    paper = find_protocol("paper")
    assert paper.metric == "accuracy"
    for subject in ("BACH", "CRC", "linear", "fine-tuning", "augmentation"):
        assert any(subject in choice for choice in paper.choices)


def test_settings_that_are_not_in_the_documentation_of_their_source() -> None:
    eva = find_protocol("eva-2025-03").linear
    assert (eva.learning_rate, eva.weight_decay, eva.warm_up_epochs) == (3e-4, 0.01, 5)
    logreg = find_protocol("dinov2-logreg").linear
    assert len(logreg.cs) == 45
    assert (logreg.cs[0], logreg.cs[-1]) == pytest.approx((1e-6, 1e5))

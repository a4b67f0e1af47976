import pytest

from eosin.errors import UsageError
from eosin.protocols._base import find_protocol
from eosin.tasks._base import Job, run_head
from eosin.tasks._why import differences, explain, lines
from tests.tasks.blobs import blobs, embed, inputs_of

STRICT, UNI = find_protocol("strict"), find_protocol("uni-linear")


def test_the_way_begins_at_one_protocol_and_ends_at_the_other() -> None:
    embedded = embed(with_valid=True, train=blobs(120, 0, spread=4.0))
    steps = explain("linear", STRICT, UNI, inputs_of(embedded), seed=0)
    for step, protocol in ((steps[0], STRICT), (steps[-1], UNI)):
        job = Job(task="linear", protocol=protocol)
        row = run_head("linear", protocol.linear, job, embedded)[0][0]
        assert step.value == pytest.approx(row.metrics[protocol.metric].value)
        assert step.metric == protocol.metric
    # UNI leaves nothing to choose on, so strict's classifier gives way first.
    # Both report balanced accuracy, so the metric is no step.
    assert [step.n_fit for step in steps] == [120, 120, 150]
    assert "UniHead" in steps[1].changed
    said = lines("linear", STRICT, UNI, steps)
    assert len(said) == 4 and "points" in said[-1] and "points" not in said[1]


def test_the_division_comes_before_the_classifier_where_that_can_be() -> None:
    logreg = find_protocol("dinov2-logreg")
    steps = explain("linear", UNI, logreg, inputs_of(embed(with_valid=True)), seed=0)
    assert steps[1].changed.startswith("metric")
    assert "RandomTenth" in steps[2].changed and "PenaltyPath" in steps[3].changed
    assert "45 values" in steps[3].changed


def test_settings_that_differ_are_listed_and_others_are_not() -> None:
    found = {name: (one, other) for name, one, other in differences(STRICT, UNI)}
    assert found["division"] == ("WithinTraining", "NoSelection")
    assert found["linear"] == ("PenaltyPath", "UniHead")
    assert "metric" not in found and "name" not in found
    # UNI settles no fine-tuning, which is not asked about here.
    assert not [name for name in found if name.startswith(("finetune", "nuclei"))]
    assert not [name for name, *_ in differences(STRICT, UNI, ["knn"]) if "linear" in name]


def test_what_cannot_be_taken_apart_is_refused() -> None:
    with pytest.raises(UsageError, match="paper has no knn"):
        explain("knn", STRICT, find_protocol("paper"), inputs_of(embed()), seed=0)
    with pytest.raises(UsageError, match="--why compares linear and knn"):
        explain("finetune", STRICT, UNI, inputs_of(embed()), seed=0)

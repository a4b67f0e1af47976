import time
from dataclasses import replace

import numpy as np
import pytest

from eosin import plugins
from eosin.errors import InputError
from eosin.protocols._base import find_protocol, protocol_names
from eosin.tasks._base import Job, blank_row, run_head, score
from eosin.tasks._grid import row_ids
from tests.tasks.blobs import CLASSES, SHIFTED, blobs, embed, inputs_of

# Thousands of updates: their heads have tests of their own.
SLOW_HEADS = ("eva-2025-03", "thunder-0.2", "dinov2-linear")
HEADS = [
    (task, name)
    for name in protocol_names()
    for task in ("linear", "knn")
    if getattr(find_protocol(name), task) is not None
    and (task, name) not in [("linear", slow) for slow in SLOW_HEADS]
]


def run(task: str, protocol: str, embedded, **changes):
    job = Job(task=task, protocol=find_protocol(protocol), **changes)
    return plugins.load("tasks", task).run(job, inputs_of(embedded))


@pytest.mark.parametrize(("task", "protocol"), HEADS)
def test_a_row_for_each_kind_of_test_images(task: str, protocol: str) -> None:
    embedded = embed()
    rows = run(task, protocol, embedded)
    job = Job(task=task, protocol=find_protocol(protocol))
    assert [row.row_id for row, _ in rows] == row_ids(job, inputs_of(embedded))
    (clean, predictions), (shifted, _) = rows
    assert (clean.data.shift, shifted.data.shift) == ("none", SHIFTED)
    assert (clean.task, clean.protocol.id) == (task, protocol)
    assert clean.metric == find_protocol(protocol).metric
    assert clean.metrics["accuracy"].value > 0.9
    # Mirrored embeddings are on the other side of every boundary.
    assert shifted.metrics["accuracy"].value < 0.3
    fitted_on = 96 if protocol == "thunder-0.2" else 120
    assert clean.selection["n_fit"] == fitted_on and clean.selection["split"]
    assert predictions.scores.shape == (60, 3)
    assert np.allclose(predictions.scores.sum(1), 1, atol=1e-5)
    assert predictions.group[0] == "test/patient 0"


@pytest.mark.parametrize(("task", "protocol"), [(t, p) for t, p in HEADS if p != "dinov2-linear"])
def test_what_is_chosen_never_depends_on_the_test_labels(task: str, protocol: str) -> None:
    honest = embed()
    test = honest.tests["none"]
    swapped = replace(test.images, labels=(test.images.labels + 1) % 3)
    other = replace(honest, tests={"none": replace(test, images=swapped)})
    one = run(task, protocol, honest)[0]
    two = run(task, protocol, other)[0]
    assert one[0].selection == two[0].selection
    assert np.array_equal(one[1].scores, two[1].scores)
    assert two[0].metrics["accuracy"].value < 0.1


def test_a_part_of_the_labels_is_all_that_is_fitted_on() -> None:
    few = run("linear", "strict", embed(with_valid=True), label_fraction=0.3)[0][0]
    assert few.selection["n_fit"] == 36 and few.selection["split"] == "validation split"
    assert few.label_fraction == 0.3
    draws = [
        run("linear", "strict", embed(), label_fraction=0.3, draw=draw)[0][1] for draw in (0, 1)
    ]
    assert not np.array_equal(draws[0].scores, draws[1].scores)


def test_too_few_groups_are_refused() -> None:
    one_group_a_class = blobs(3, 0)
    with pytest.raises(InputError, match="of too few groups"):
        run("knn", "strict", embed(train=replace_groups(one_group_a_class)))


def replace_groups(split):
    images = replace(split.images, groups=np.array(["patient 1"] * len(split.images)))
    return replace(split, images=images)


def test_a_row_says_what_it_was_made_from() -> None:
    embedded = embed()
    job = Job(task="linear", protocol=find_protocol("strict"), seed=3)
    perfect = np.eye(3, dtype=np.float32)[embedded.tests["none"].images.labels]
    row, predictions = score(
        "linear",
        perfect,
        embedded.tests["none"].images,
        {"c": 1.0},
        job,
        embedded.encoder,
        embedded.data,
        time.perf_counter(),
    )
    assert row.row_id == blank_row("linear", job, embedded.encoder, embedded.data).row_id
    assert (row.seed, row.selection, row.metrics["accuracy"].value) == (3, {"c": 1.0}, 1.0)
    assert row.seconds >= 0 and row.provenance["created"]
    assert predictions.sample[0] == "test/0" and row.data.classes == CLASSES


def test_a_head_that_the_protocol_lacks_is_never_run() -> None:
    eva = find_protocol("eva-2025-03")
    with pytest.raises(AssertionError):
        run_head("knn", eva.knn, Job(task="knn", protocol=eva), embed())

"""Metrics of instances from counts: worked by hand, and through files, comparison and verify."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.results.comparison import compare_encoders
from eosin.results.files import read_predictions, read_results, write_job
from eosin.results.instance_counts import OF_TYPES, SHARED, InstanceCounts
from eosin.results.instance_scores import (
    INSTANCE_METRICS,
    image_scores,
    make_instance_scorer,
    metric_names,
    pooled_scores,
)
from eosin.results.schema import DataStamp, EncoderStamp, ProtocolStamp, Result
from eosin.results.statistics import compare, measure, resample
from eosin.results.verify import Config, verify
from eosin.results.wording import column_lines

TYPES = ("epithelial", "spindle")


def by_hand() -> InstanceCounts:
    """Three images of two patients: something of everything, nothing found, and an empty one."""
    return InstanceCounts(
        types=TYPES,
        sample=np.array(["a", "b", "c"]),
        group=np.array(["p", "p", "q"]),
        areas=np.array([[40.0, 60.0, 30.0], [10.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        aji=np.array([[30.0, 90.0], [0.0, 10.0], [0.0, 0.0]]),
        aji_plus=np.array([[30.0, 100.0], [0.0, 10.0], [0.0, 0.0]]),
        matched=np.array([[2.0, 1.0, 1.0, 1.5], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]),
        matched_of_type=np.array(
            [
                [[2.0, 0.0, 0.0, 1.6], [0.0, 2.0, 0.0, 0.0]],
                [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
                [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
            ]
        ),
        found=np.array([[3.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
        found_of_type=np.array(
            [
                [[2.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0]],
                [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]],
                [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]],
            ]
        ),
    )


def random_counts(seed: int, images: int = 14) -> InstanceCounts:
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(5, 30, (images, 2)).astype(float)
    tp = np.floor(truth * generator.uniform(0.3, 0.9, truth.shape))
    fp = generator.integers(0, 9, truth.shape).astype(float)
    fn = truth - tp
    iou = tp * generator.uniform(0.6, 0.9, truth.shape)
    of_type = np.stack([tp, fp, fn, iou], axis=-1)
    found = np.stack([tp, fp, fn, fp, fn], axis=-1)
    true_area = np.random.default_rng(98).integers(500, 900, images).astype(float)
    common = true_area * generator.uniform(0.5, 0.9, images)
    overlap = np.stack([common, true_area + 100], axis=-1)
    return InstanceCounts(
        types=TYPES,
        sample=np.array([f"image {number:02}" for number in range(images)]),
        group=np.array([f"patient {number // 2}" for number in range(images)]),
        areas=np.stack([true_area, true_area, common], axis=-1),
        aji=overlap,
        aji_plus=overlap,
        matched=of_type.sum(1),
        matched_of_type=of_type,
        found=found.sum(1)[:, :3],
        found_of_type=found,
    )


def test_per_image_metrics_worked_by_hand() -> None:
    found = image_scores(by_hand())
    expected = {
        "dice": (0.6, 0.0),
        "aji": (1 / 3, 0.0),
        "aji_plus": (0.3, 0.0),
        "dq": (2 / 3, 0.0),
        "sq": (0.75, 0.0),
        "pq": (0.5, 0.0),
        # Of the first image the truth has no spindle, so two false ones cost nothing.
        "mpq": (0.8, 0.0),
    }
    for name, values in expected.items():
        assert found[name][:2] == pytest.approx(values), name
        assert np.isnan(found[name][2]), name


def test_pooled_metrics_worked_by_hand() -> None:
    found = pooled_scores(by_hand())
    assert found == pytest.approx(
        {
            "mpq_plus": (0.8 + 0.0) / 2,
            "pq.epithelial": 0.8,
            "pq.spindle": 0.0,
            "f_detection": 6 / 8,
            "f_type": (4 / 6 + 0.0) / 2,
            "f_type.epithelial": 4 / 6,
            "f_type.spindle": 0.0,
        }
    )


def test_means_leave_out_what_is_not_defined() -> None:
    measured = measure(by_hand())
    assert measured["pq"].value == pytest.approx(0.25)
    assert measured["mpq"].value == pytest.approx(0.4)
    assert set(measured) == set(metric_names(by_hand()))
    nothing = replace(
        by_hand(), **{name: 0 * getattr(by_hand(), name) for name in (*SHARED, *OF_TYPES)}
    )
    assert measure(nothing) == {}


def test_a_type_that_never_occurs_is_left_out_of_the_mean() -> None:
    counts = by_hand()
    typed = counts.matched_of_type.copy()
    typed[:, 1] = 0
    found = pooled_scores(replace(counts, matched_of_type=typed))
    assert found["mpq_plus"] == pytest.approx(0.8) and np.isnan(found["pq.spindle"])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    metric=st.sampled_from([*INSTANCE_METRICS, "pq.spindle", "f_type.epithelial"]),
)
def test_weights_are_repeated_groups(seed: int, metric: str) -> None:
    counts = random_counts(seed, images=6)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 1))
    weights[0] = 1
    repeated = [
        (place, copy)
        for place, group in enumerate(counts.group.tolist())
        for copy in range(int(weights[int(group.split()[1]), 0]))
    ]
    order = np.array([place for place, _ in repeated])
    arrays = {name: getattr(counts, name)[order] for name in (*SHARED, *OF_TYPES, "group")}
    names = np.array([f"{place} {copy}" for place, copy in repeated])
    longer = replace(counts, sample=names, **arrays)
    expected = {
        **{k: np.nanmean(v) for k, v in image_scores(longer).items()},
        **pooled_scores(longer),
    }
    scorer = make_instance_scorer(counts, metric)
    assert scorer.score(weights.astype(float))[0] == pytest.approx(expected[metric])


@pytest.mark.parametrize("metric", INSTANCE_METRICS)
def test_contributions_sum_to_the_value(metric: str) -> None:
    scorer = make_instance_scorer(random_counts(3), metric)
    assert scorer.contributions().sum() == pytest.approx(scorer.score(np.ones((7, 1)))[0])


def test_encoders_are_compared_on_the_same_images() -> None:
    first, second = random_counts(0), random_counts(1)
    sampled = resample([[first], [second]], "pq")
    assert sampled.n_groups == 7
    expected = np.nanmean(image_scores(first)["pq"]) - np.nanmean(image_scores(second)["pq"])
    found = compare([first], [second], "pq")
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    other = replace(second, areas=second.areas + np.array([1.0, 0.0, 0.0]))
    with pytest.raises(InputError, match="'image 00' has another label"):
        compare([first], [other], "pq")


def result(encoder: str, seed: int, counts: InstanceCounts) -> Result:
    return Result(
        task="nuclei",
        protocol=ProtocolStamp(id="strict", version=1),
        encoder=EncoderStamp(
            name=encoder,
            weights_sha256=encoder,
            transform="t",
            pooling="p",
            precision="fp32",
            embed_dim=1,
        ),
        data=DataStamp(
            name="consep",
            manifest_sha256="m",
            split_sha256="s",
            n_train=27,
            n_test=len(counts.sample),
            classes=TYPES,
        ),
        seed=seed,
        selection={},
        metrics=measure(counts),
        metric="pq",
        seconds=1.0,
        provenance={"created": "now"},
    )


def test_rows_of_instances_are_written_read_compared_and_verified(tmp_path: Path) -> None:
    for number, encoder in enumerate(("ours", "random/resnet18")):
        for seed in (0, 1):
            counts = random_counts(10 * number + seed)
            write_job(tmp_path, [(result(encoder, seed, counts), counts)])
    rows = read_results(tmp_path)
    assert len(rows) == 4
    for row in rows:
        read = read_predictions(row)
        assert isinstance(read, InstanceCounts) and read.types == TYPES
        original = random_counts(10 * (row.encoder.name != "ours") + row.seed)
        for name in (*SHARED, *OF_TYPES, "sample", "group"):
            assert np.array_equal(getattr(read, name), getattr(original, name)), name
    comparison = compare_encoders(rows, "pq")
    assert set(comparison.encoders) == {"ours", "random/resnet18"}
    (column,) = comparison.columns
    assert (column.n_test, column.n_groups) == (14, 7)
    assert compare_encoders(rows).metric == "pq"
    assert verify(Config(folder=tmp_path)).deviations == ()
    edited = rows[0].folder / next(tmp_path.glob("job-*.jsonl")).name
    edited.write_text(edited.read_text().replace('"value": 0.', '"value": 0.1', 1))
    assert verify(Config(folder=tmp_path)).deviations


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="matched_of_type has the shape"):
        replace(by_hand(), types=("one",))
    with pytest.raises(ValueError, match="areas has the shape"):
        replace(by_hand(), areas=np.zeros((3, 2)))


def test_instances_stand_beside_classes_each_by_its_metric(
    tmp_path: Path, make_predictions, make_result
) -> None:
    predictions = make_predictions(1.0)
    counts = random_counts(0)
    rows = [
        (make_result(predictions, name="ours"), predictions),
        (result("ours", 0, counts), counts),
    ]
    for row in rows:
        write_job(tmp_path, [row])
    comparison = compare_encoders(read_results(tmp_path), "accuracy")
    assert {column.family.metric for column in comparison.columns} == {"accuracy", "pq"}
    assert comparison.metric == "accuracy"
    said = {column_lines(column, comparison)[1] for column in comparison.columns}
    assert said == {"linear, strict v1", "nuclei, strict v1 (PQ)"}
    for column in comparison.columns:
        cell = comparison.cells["ours", column]
        row = next(row for row, _ in rows if row.task == column.family.task)
        assert cell.metric.value == pytest.approx(row.metrics[column.family.metric].value)
    alone = compare_encoders(read_results(tmp_path), "mpq")
    assert [column.family.task for column in alone.columns] == ["nuclei"]
    assert alone.metric == "mpq"

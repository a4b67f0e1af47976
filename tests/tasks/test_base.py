import time

import numpy as np
import pytest

from eosin import plugins
from eosin.datasets._base import LabelledImages
from eosin.errors import InputError
from eosin.protocols import find_protocol
from eosin.results.schema import DataStamp, EncoderStamp
from eosin.tasks._base import Embedded, Fold, Split, balanced_accuracy, choose, score

STRICT = find_protocol("strict")
CLASSES = ("a", "b", "c")


def split(
    count: int, seed: int, name: str = "train", spread: float = 1.0, per_group: int = 1
) -> Split:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), 16))
    features = centres[labels] + spread * generator.normal(size=(count, 16))
    images = LabelledImages(
        dataset="blobs",
        split=name,
        ids=tuple(f"{name}/{number}" for number in range(count)),
        labels=labels,
        groups=np.array([f"{name}/patient {number // per_group}" for number in range(count)]),
        grouped_by="patient",
        classes=CLASSES,
        reader=lambda index: np.zeros((8, 8, 3), np.uint8),
        manifest_sha256=name,
        split_sha256="division",
    )
    return Split(images=images, embeddings=features.astype(np.float32))


def embedded(*, with_valid: bool = False, train: Split | None = None) -> Embedded:
    train = train or split(120, 0, per_group=6)
    test = split(60, 1, "test")
    return Embedded(
        encoder=EncoderStamp(
            name="e", weights_sha256="w", transform="t", pooling="p", precision="fp32", embed_dim=16
        ),
        data=DataStamp(
            name="blobs",
            manifest_sha256="m",
            split_sha256="division",
            n_train=len(train.images),
            n_test=60,
            classes=CLASSES,
        ),
        train=train,
        valid=split(30, 2, "valid") if with_valid else None,
        tests={
            "none": test,
            "stain-shift-v1": Split(images=test.images, embeddings=-test.embeddings),
        },
    )


@pytest.mark.parametrize("name", plugins.names("tasks"))
@pytest.mark.parametrize("with_valid", [False, True])
def test_every_task_scores_clean_and_shifted_images_once(name: str, with_valid: bool) -> None:
    task = plugins.load("tasks", name)
    rows = task.run(task.Config(protocol="strict", seed=3), embedded(with_valid=with_valid))
    assert [result.data.shift for result, _ in rows] == ["none", "stain-shift-v1"]
    for result, predictions in rows:
        assert (result.task, result.protocol.id, result.protocol.version) == (name, "strict", 1)
        assert result.seed == 3 and result.seconds > 0
        assert ("validation split" in result.selection["split"]) == with_valid
        assert predictions.sample.tolist() == [f"test/{number}" for number in range(60)]
        assert predictions.scores.shape == (60, 3)
        assert (predictions.predicted == predictions.scores.argmax(1)).all()
        assert {"accuracy", "balanced_accuracy", "macro_f1", "auroc"} <= result.metrics.keys()
    clean, shifted = (result.metrics["accuracy"].value for result, _ in rows)
    assert clean > 0.85 > 0.5 > shifted


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_every_task_is_repeatable(name: str) -> None:
    task = plugins.load("tasks", name)
    first, second = (task.run(task.Config(), embedded())[0] for _ in range(2))
    assert first[0].row_id == second[0].row_id
    assert first[0].metrics == second[0].metrics
    assert (first[1].scores == second[1].scores).all()


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_test_labels_have_no_say_in_the_choice(name: str) -> None:
    task = plugins.load("tasks", name)
    data = embedded()
    expected = task.run(task.Config(), data)
    for test in data.tests.values():
        test.images.labels[:] = np.roll(test.images.labels, 1)
    changed = task.run(task.Config(), data)
    assert changed[0][0].selection == expected[0][0].selection
    assert (changed[0][1].scores == expected[0][1].scores).all()
    assert changed[0][0].metrics != expected[0][0].metrics


def test_folds_cover_the_training_data_and_keep_groups_together() -> None:
    data = embedded()
    group_of = {
        tuple(row): group
        for row, group in zip(
            data.train.embeddings.tolist(), data.train.images.groups.tolist(), strict=True
        )
    }
    held_out: list[tuple[float, ...]] = []

    def predict(fold: Fold) -> list[np.ndarray]:
        fitted = {group_of[tuple(row)] for row in fold.features.tolist()}
        held = [tuple(row) for row in fold.held_out_features.tolist()]
        assert not fitted & {group_of[row] for row in held}
        held_out.extend(held)
        return [np.eye(3, dtype=np.float32)[fold.held_out_labels]]

    choice = choose(["only"], predict, data, STRICT, seed=0)
    assert (choice.value, choice.balanced_accuracy) == ("only", 1.0)
    assert sorted(held_out) == sorted(group_of)


def test_of_equally_good_values_the_first_is_chosen() -> None:
    def predict(fold: Fold) -> list[np.ndarray]:
        right = np.eye(3, dtype=np.float32)[fold.held_out_labels]
        return [np.roll(right, 1, axis=1), right, right]

    assert choose([1, 2, 3], predict, embedded(), STRICT, seed=0).value == 2


def test_too_few_groups_to_choose_by_is_an_error() -> None:
    data = embedded(train=split(30, 0, per_group=30))
    with pytest.raises(InputError, match="too few groups to hold some out"):
        choose([1], lambda fold: [], data, STRICT, seed=0)


def test_balanced_accuracy_counts_every_class_that_occurs_alike() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 2]]
    assert balanced_accuracy(scores, np.array([0, 0, 0, 0, 2])) == pytest.approx((0.75 + 1) / 2)


def test_predictions_carry_ids_and_groups() -> None:
    data = embedded()
    rows = score("t", lambda features: features[:, :3], {}, data, STRICT, 0, time.perf_counter())
    predictions = rows[0][1]
    assert predictions.group.tolist() == [f"test/patient {number}" for number in range(60)]
    assert (predictions.scores == data.tests["none"].embeddings[:, :3]).all()

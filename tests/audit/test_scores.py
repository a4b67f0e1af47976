import numpy as np
import pytest

from eosin.audit import probing, scores
from eosin.audit.probing import Sample
from eosin.datasets._base import LabelledImages
from eosin.results.schema import Predictions


def sample(groups: int, each: int, signal: float, own: float, seed: int, name: str = "i") -> Sample:
    """Two classes; features tell the class by `signal`, and the group by `own`."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    labels = (group % 2).astype(np.int64)
    features = rng.normal(size=(groups * each, 40))
    features[:, 0] += signal * (2 * labels - 1)
    features += own * rng.normal(size=(groups, 40))[group]
    return Sample(
        ids=np.array([f"{name}{number}" for number in range(len(group))]),
        features=features.astype(np.float32),
        labels=labels,
        groups=np.array([f"{name}{number}" for number in group]),
    )


def predictions(hits: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> Predictions:
    predicted = np.where(hits, labels, 1 - labels)
    return Predictions(
        sample=np.arange(len(hits)).astype(str),
        group=groups,
        label=labels,
        predicted=predicted,
        scores=np.eye(2, dtype=np.float32)[predicted],
    )


def test_a_random_split_adds_what_groups_give_away() -> None:
    leaky = scores.random_split_leak(sample(60, 6, 0.2, 3, 0), 3, 2, 0)
    assert leaky is not None and leaky.added.low > 0.1
    assert leaky.added.value == pytest.approx(leaky.with_leak.value - leaky.without.value)
    clean = scores.random_split_leak(sample(360, 1, 1.0, 0, 0), 3, 2, 0)
    assert clean is not None and abs(clean.added.value) < 0.05


def test_a_class_of_one_group_has_no_fold() -> None:
    assert scores.random_split_leak(sample(2, 10, 1, 0, 0), 2, 2, 0) is None


def test_copies_in_training_add_to_the_score_and_are_left_out_for_comparison() -> None:
    train, test = sample(120, 1, 0.3, 2, 0, "r"), sample(60, 1, 0.3, 2, 1, "t")
    rng = np.random.default_rng(2)
    copied = Sample(
        ids=np.array([f"c{number}" for number in range(60)]),
        features=test.features + 0.05 * rng.normal(size=test.features.shape).astype(np.float32),
        labels=test.labels,
        groups=np.array([f"c{number}" for number in range(60)]),
    )
    whole = probing.join(train, copied)
    copies = np.arange(180) >= 120
    leak = scores.duplicate_leak(whole, test, copies, 2, 0)
    assert leak is not None
    assert leak.removed == 60
    assert leak.added.value > 0.03
    assert scores.duplicate_leak(whole, test, whole.labels == 1, 2, 0) is None


def test_the_share_of_the_gain_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    labels, groups = np.tile([0, 1], 1000), np.repeat(np.arange(100), 20).astype(str)
    whole = predictions(rng.random(2000) < 0.9, groups, labels)
    part = predictions(rng.random(2000) < 0.7, groups, labels)
    share, low, high = probing.share_of_gain(part, whole, 0.5)
    assert low < share < high
    assert low < 0.5 < high and high - low < 0.2
    same = probing.share_of_gain(whole, whole, 0.5)
    assert same == pytest.approx((1, 1, 1))
    one_group = np.full(2000, "g")
    alone = predictions(rng.random(2000) < 0.7, one_group, labels)
    assert probing.share_of_gain(alone, alone, 0.5)[1:] == (-np.inf, np.inf)


def test_a_draw_takes_whole_groups_and_every_class() -> None:
    groups = np.repeat(np.arange(50), 4).astype(str)
    labels = np.zeros(200, np.int64)
    labels[-4:] = 1
    images = LabelledImages(
        dataset="d",
        split="train",
        ids=tuple(map(str, range(200))),
        labels=labels,
        groups=groups,
        grouped_by="patient",
        classes=("a", "b"),
        reader=lambda index: np.zeros((2, 2, 3), np.uint8),
        manifest_sha256="m",
        split_sha256="s",
    )
    for seed in range(5):
        drawn = scores.draw(images, 42, seed)
        assert 36 <= len(drawn.ids) <= 44
        assert set(labels[drawn.rows]) == {0, 1}
        kept = set(groups[drawn.rows])
        assert len(drawn.ids) == sum(group in kept for group in groups)
        assert drawn.manifest_sha256 not in ("m", scores.draw(images, 30, seed).manifest_sha256)
    assert scores.draw(images, 200, 0).manifest_sha256 == "m"

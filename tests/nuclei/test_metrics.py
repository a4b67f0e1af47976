"""Counts of instances: by hand, by brute force, and as torchmetrics has them."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eosin.nuclei.metrics import ImageCounts, Labelled, count, stack
from eosin.results.instance_scores import image_scores, pooled_scores

NAMES = ("areas", "aji", "aji_plus", "matched", "matched_of_type", "found", "found_of_type")
TYPES = ("a", "b", "c")
Rng = np.random.Generator


def draw(generator: Rng, side: int = 40, most: int = 14) -> Labelled:
    """Discs over each other; some numbers may have no pixels left."""
    y, x = np.mgrid[:side, :side]
    drawn = np.zeros((side, side), np.int32)
    total = int(generator.integers(0, most))
    for number in range(1, total + 1):
        middle = generator.uniform(0, side, 2)
        radius = generator.uniform(1, 6)
        drawn[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2] = number
    return drawn, generator.integers(0, len(TYPES), total)


def draw_like(generator: Rng, truth: Labelled) -> Labelled:
    """The same with some shifted, lost, joined and given other types, and some new."""
    drawn, types = draw(generator, truth[0].shape[0], 4)
    types = list(types)
    out = drawn.astype(np.int32)
    for number, of_type in enumerate(truth[1].tolist(), 1):
        if generator.random() < 0.2:
            continue
        mask = np.roll(truth[0] == number, generator.integers(-1, 2, 2), (0, 1))
        if generator.random() > 0.15 or not types:
            types.append(of_type if generator.random() < 0.7 else int(generator.integers(3)))
        out[mask] = len(types)
    return out, np.array(types, dtype=np.int64)


def pair(seed: int) -> tuple[Labelled, Labelled]:
    generator = np.random.default_rng(seed)
    truth = draw(generator)
    return truth, draw_like(generator, truth)


def as_dict(counts: ImageCounts) -> dict[str, list[float]]:
    return {name: np.round(getattr(counts, name), 9).tolist() for name in NAMES}


def masks(side: Labelled) -> list[NDArray[np.bool_]]:
    return [mask for number in range(1, len(side[1]) + 1) if (mask := side[0] == number).any()]


def kinds(side: Labelled) -> list[int]:
    return [int(k) for number, k in enumerate(side[1], 1) if (side[0] == number).any()]


def shared(
    true: list[NDArray[np.bool_]], found: list[NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    shape = (len(true), len(found))
    inter = np.array([[(t & p).sum() for p in found] for t in true], dtype=int).reshape(shape)
    union = np.array([[(t | p).sum() for p in found] for t in true], dtype=int).reshape(shape)
    return inter, union


def hand_worked() -> tuple[Labelled, Labelled]:
    truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 0], [3, 3, 0, 0]])
    found = np.array([[1, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 0], [0, 0, 3, 3]])
    return (truth, np.array([0, 1, 1])), (found, np.array([0, 1, 0]))


def test_a_small_map_worked_by_hand() -> None:
    # 1: 3 of 4 pixels; 2: 1 of 2, an IoU of 0.5 that is no match; 3 is missed, and one is made up.
    assert as_dict(count(*hand_worked(), 2, radius_px=1)) == {
        "areas": [8, 6, 4],
        "aji": [4, 4 + 2 + 2 + 2],
        "aji_plus": [4, 10],
        "matched": [1, 2, 2, 0.75],
        "matched_of_type": [[1, 1, 0, 0.75], [0, 1, 2, 0]],
        "found": [2, 1, 1],
        "found_of_type": [[1, 0, 0, 1, 0], [1, 0, 0, 0, 1]],
    }
    # Two pixels between the centroids of both that are left over, which are of different types.
    far = count(*hand_worked(), 2, radius_px=2)
    assert far.found.tolist() == [3, 0, 0]
    assert far.found_of_type.tolist() == [[1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]


def test_scores_of_the_small_map() -> None:
    counts = stack(("a", "b"), ["x"], ["g"], [count(*hand_worked(), 2, radius_px=1)])
    scores = {name: float(value[0]) for name, value in image_scores(counts).items()}
    assert scores == pytest.approx(
        {
            "dice": 8 / 14,
            "aji": 0.4,
            "aji_plus": 0.4,
            "dq": 1 / 3,
            "sq": 0.75,
            "pq": 0.25,
            "mpq": (0.75 / 1.5 + 0) / 2,
        }
    )
    pooled = pooled_scores(counts)
    assert pooled["f_detection"] == pytest.approx(4 / 6)
    assert pooled["mpq_plus"] == pytest.approx(0.25)


def test_a_prediction_is_used_twice_by_aji_and_once_by_aji_plus() -> None:
    truth = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 2, 2]])
    found = np.ones((2, 5), int)
    counts = count((truth, np.zeros(2, int)), (found, np.zeros(1, int)), 1)
    assert counts.aji.tolist() == [10, 20] and counts.aji_plus.tolist() == [6, 10 + 4]
    assert counts.matched.tolist() == [1, 0, 1, 0.6]


def test_one_to_one_is_best_together_not_one_by_one() -> None:
    # The second prediction overlaps both; the first true one would take it, greedily.
    truth = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 2, 0]])
    found = np.array([[1, 1, 2, 2, 2, 2, 2, 2, 2, 2]])
    counts = count((truth, np.zeros(2, int)), (found, np.zeros(2, int)), 1)
    assert counts.aji_plus.tolist() == [2 + 4, 5 + 8]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_counts_are_those_of_brute_force(seed: int) -> None:
    truth, found = pair(seed)
    counts = count(truth, found, 3)
    true_masks, found_masks = masks(truth), masks(found)
    true_kinds, found_kinds = kinds(truth), kinds(found)
    inter, union = shared(true_masks, found_masks)
    iou = inter / np.maximum(union, 1)
    t, p = np.nonzero(iou > 0.5)
    n_true, n_found = iou.shape
    expected = [len(t), n_found - len(t), n_true - len(t), iou[t, p].sum()]
    assert np.allclose(counts.matched, expected)
    for kind in range(3):
        same = [
            (a, b) for a, b in zip(t, p, strict=True) if true_kinds[a] == found_kinds[b] == kind
        ]
        expected = [
            len(same),
            found_kinds.count(kind) - len(same),
            true_kinds.count(kind) - len(same),
            sum(iou[each] for each in same),
        ]
        assert np.allclose(counts.matched_of_type[kind], expected)
    shared_px = int(((truth[0] > 0) & (found[0] > 0)).sum())
    assert counts.areas.tolist() == [(truth[0] > 0).sum(), (found[0] > 0).sum(), shared_px]
    # AJI: each true one with the prediction that fits it best.
    chosen = [(a, int(iou[a].argmax())) for a in range(n_true) if n_found and iou[a].max() > 0]
    best = [np.sort(iou[a])[-2:] for a, _ in chosen]
    if all(len(each) < 2 or each[0] < each[1] for each in best):
        assert counts.aji.tolist() == aggregate(true_masks, found_masks, inter, union, chosen)
    rows, columns = linear_sum_assignment(-inter / (union + 1e-6))
    chosen = [each for each in zip(rows, columns, strict=True) if iou[each] > 0]
    expected = aggregate(true_masks, found_masks, inter, union, chosen)
    assert counts.aji_plus.tolist() == expected or has_ties(iou)
    tp, fp, fn = counts.found.tolist()
    assert tp + fn == n_true and tp + fp == n_found
    both, fp_of, fn_of, alone_fp, alone_fn = counts.found_of_type.T
    assert [(both + fn_of + alone_fn)[k] == true_kinds.count(k) for k in range(3)] == [True] * 3
    assert [(both + fp_of + alone_fp)[k] == found_kinds.count(k) for k in range(3)] == [True] * 3
    assert both.sum() + fp_of.sum() == both.sum() + fn_of.sum() == tp


def aggregate(true, found, inter, union, chosen) -> list[float]:
    total = sum(union[each] for each in chosen)
    total += sum(m.sum() for a, m in enumerate(true) if a not in {each[0] for each in chosen})
    total += sum(m.sum() for b, m in enumerate(found) if b not in {each[1] for each in chosen})
    return [sum(inter[each] for each in chosen), total]


def has_ties(iou: NDArray[np.float64]) -> bool:
    positive = iou[iou > 0]
    return len(np.unique(positive)) < len(positive)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_true=st.integers(0, 4),
    n_found=st.integers(0, 4),
    radius=st.sampled_from([2.0, 5.0, 12.0]),
)
def test_centroids_are_paired_at_the_least_total_distance(
    seed: int, n_true: int, n_found: int, radius: float
) -> None:
    generator = np.random.default_rng(seed)
    sides = []
    for total in (n_true, n_found):
        drawn = np.zeros((30, 30), np.int32)
        places = generator.choice(900, total, replace=False)
        drawn.ravel()[places] = np.arange(total) + 1
        sides.append((drawn, np.zeros(total, np.int64)))
    points = [
        np.array(np.unravel_index(np.argsort(s[0].ravel())[900 - n :], (30, 30))).T
        for s, n in zip(sides, (n_true, n_found), strict=True)
    ]
    few, many = sorted(points, key=len)
    orders = list(permutations(range(len(many)), len(few)))
    lengths = [
        [float(np.hypot(*(few[k] - many[o]))) for k, o in enumerate(each)] for each in orders
    ]
    totals = np.array([sum(each) for each in lengths])
    least = [
        each for each, total in zip(lengths, totals, strict=True) if total < totals.min() + 1e-9
    ]
    possible = {sum(length <= radius for length in each) for each in least}
    assert count(*sides, 1, radius_px=radius).found[0] in possible


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_perfect_prediction_is_perfect(seed: int) -> None:
    truth = draw(np.random.default_rng(seed))
    total = len(masks(truth))
    assume(total)
    counts = stack(TYPES, ["x"], ["g"], [count(truth, truth, 3)])
    assert {float(value[0]) for value in image_scores(counts).values()} == {1.0}
    pooled = pooled_scores(counts)
    assert {value for value in pooled.values() if not np.isnan(value)} == {1.0}
    assert counts.found.tolist() == [[total, 0, 0]]
    assert not counts.found_of_type[..., 1:].any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_numbers_of_instances_mean_nothing(seed: int) -> None:
    truth, found = pair(seed)
    generator = np.random.default_rng(seed + 1)
    renumbered = []
    for instances, types in (truth, found):
        # Other numbers, in another order, with gaps.
        to = generator.permutation(2 * len(types))[: len(types)] + 1
        of_number = np.zeros(2 * len(types), np.int64)
        of_number[to - 1] = types
        renumbered.append((np.concatenate([[0], to])[instances], of_number))
    inter, union = shared(masks(truth), masks(found))
    before, after = as_dict(count(truth, found, 3)), as_dict(count(*renumbered, 3))
    if has_ties(inter / np.maximum(union, 1)):  # of equals the first is taken
        before["aji"] = after["aji"]
        before["aji_plus"] = after["aji_plus"]
    assert before == after


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_exchanging_the_sides_exchanges_false_positives_and_negatives(seed: int) -> None:
    truth, found = pair(seed)
    there, back = count(truth, found, 3), count(found, truth, 3)
    assert np.allclose(there.matched[[0, 2, 1, 3]], back.matched)
    assert np.allclose(there.matched_of_type[:, [0, 2, 1, 3]], back.matched_of_type)
    assert there.areas[[1, 0, 2]].tolist() == back.areas.tolist()
    iou = np.divide(*shared(masks(truth), masks(found)))
    assert has_ties(iou) or there.aji_plus.tolist() == back.aji_plus.tolist()


def test_images_without_truth_without_prediction_and_without_both() -> None:
    nothing = (np.zeros((6, 6), np.int32), np.empty(0, np.int64))
    some = np.zeros((6, 6), np.int32)
    some[:2, :2], some[4:, 4:] = 1, 2
    nuclei = (some, np.array([0, 2]))
    neither, missed, made_up = (
        count(nothing, nothing, 3),
        count(nuclei, nothing, 3),
        count(nothing, nuclei, 3),
    )
    assert all(not getattr(neither, name).any() for name in NAMES)
    assert missed.aji.tolist() == missed.aji_plus.tolist() == [0, 8]
    assert made_up.aji.tolist() == made_up.aji_plus.tolist() == [0, 8]
    assert missed.matched.tolist() == [0, 0, 2, 0] and made_up.matched.tolist() == [0, 2, 0, 0]
    assert missed.found.tolist() == [0, 0, 2] and made_up.found.tolist() == [0, 2, 0]
    assert missed.matched_of_type[:, 2].tolist() == [1, 0, 1]
    assert made_up.found_of_type[:, 3].tolist() == [1, 0, 1]
    counts = stack(TYPES, ["x", "y", "z"], ["g"] * 3, [neither, missed, made_up])
    for name, values in image_scores(counts).items():
        # Of types that the truth lacks PanNuke's mPQ says nothing.
        undefined = [True, False, name == "mpq"]
        assert np.isnan(values).tolist() == undefined and not np.nansum(values), name
    pooled = pooled_scores(counts)
    assert pooled["f_detection"] == 0 and np.isnan(pooled["f_type.b"]) and np.isnan(pooled["pq.b"])
    no_pixels = count((np.zeros((6, 6), int), np.array([1])), nothing, 3)
    assert as_dict(no_pixels) == as_dict(neither)


def test_a_type_that_is_absent_counts_nothing() -> None:
    truth, found = hand_worked()
    counts = count(truth, found, 4)
    assert not counts.matched_of_type[2:].any() and not counts.found_of_type[2:].any()
    assert counts.matched_of_type.shape == (4, 4) and counts.found_of_type.shape == (4, 5)


def test_pooled_quality_is_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    oracle = detection.PanopticQuality(things={1, 2, 3}, stuffs={0}, return_per_class=True)
    rows: list[ImageCounts] = []
    for seed in range(12):
        truth, found = pair(seed)
        rows.append(count(truth, found, 3))
        maps = [
            torch.from_numpy(
                np.stack([np.concatenate([[0], types + 1])[instances], instances], -1).astype(int)
            )[None]
            for instances, types in (found, truth)
        ]
        oracle.update(*maps)
    names = [str(number) for number in range(len(rows))]
    pooled = pooled_scores(stack(TYPES, names, names, rows))
    ours = [pooled[f"pq.{name}"] for name in TYPES]
    # Things come first there, then stuffs.
    assert ours == pytest.approx(oracle.compute().ravel()[:3].tolist(), abs=1e-6)
    assert min(ours) > 0.2 and max(ours) < 0.9


def test_what_is_not_a_map_with_types_is_refused() -> None:
    truth, found = hand_worked()
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(2, 4\)"):
        count(truth, (found[0][:2], found[1]), 2)
    with pytest.raises(ValueError, match="2 types"):
        count((truth[0], truth[1][:2]), found, 2)
    with pytest.raises(ValueError, match="below 1"):
        count(truth, found, 1)
    with pytest.raises(ValueError, match="float64"):
        count((truth[0].astype(float), truth[1]), found, 2)
    with pytest.raises(ValueError, match="-1"):
        count((truth[0] - 1, truth[1]), found, 2)

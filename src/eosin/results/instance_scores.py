"""Metrics of instance segmentation, as functions of what was counted in each image.

Per image and averaged over the images of which they are defined: Dice, the aggregated Jaccard index
AJI and its one-to-one form AJI+, detection quality DQ, segmentation quality SQ, their product PQ,
and mPQ as PanNuke has it (the mean over the types that the image's truth has). Pooled over all
images: mPQ+ as CoNIC has it (PQ of each type from all images, averaged), and HoVer-Net's F scores
of detection and of each type.

An image without instances in truth and prediction has no per-image value and is left out. Where
there are instances but no match, SQ is 0, as in the official code of HoVer-Net. A type that occurs
neither in the truth nor in the predictions of any image is left out of mPQ+.
"""

import numpy as np

from eosin.results.instance_counts import InstanceCounts
from eosin.results.scorers import Floats, mean_ratio, numbered, summing_to_value

IMAGE_METRICS = ("dice", "aji", "aji_plus", "dq", "sq", "pq", "mpq")
POOLED_METRICS = ("mpq_plus", "f_detection", "f_type")
INSTANCE_METRICS = (*IMAGE_METRICS, *POOLED_METRICS)
"""Every one lies in [0, 1] and is better when it is larger; `f_type` is the mean over the types."""


def metric_names(counts: InstanceCounts) -> tuple[str, ...]:
    """Names what `make_instance_scorer` computes: also the PQ and the F score of each type."""
    of_types = (f"{kind}.{name}" for kind in ("pq", "f_type") for name in counts.types)
    return (*INSTANCE_METRICS, *of_types)


def image_scores(counts: InstanceCounts) -> dict[str, Floats]:
    """Computes the per-image metrics, [N] each; NaN where they are not defined."""
    true, predicted, common = counts.areas.T
    tp, fp, fn, iou = counts.matched.T
    instances = tp + (fp + fn) / 2
    quality = _ratio(iou, np.maximum(tp, 1))
    by_type = _panoptic(counts.matched_of_type)
    tp_of, _, fn_of, _ = np.moveaxis(counts.matched_of_type, -1, 0)
    is_there = tp_of + fn_of > 0
    return {
        "dice": _ratio(2 * common, true + predicted),
        "aji": _ratio(*counts.aji.T),
        "aji_plus": _ratio(*counts.aji_plus.T),
        "dq": _ratio(tp, instances),
        "sq": np.where(instances > 0, quality, np.nan),
        "pq": _ratio(iou, instances),
        "mpq": _ratio(np.where(is_there, by_type, 0).sum(1), is_there.sum(1)),
    }


def pooled_scores(counts: InstanceCounts) -> dict[str, float]:
    """Computes the pooled metrics, and those of each type; NaN where they are not defined."""
    _, n_groups = numbered(counts.group)
    weights = np.ones((n_groups, 1))
    return {
        name: float(make_instance_scorer(counts, name).score(weights)[0])
        for name in metric_names(counts)
        if name not in IMAGE_METRICS
    }


class Ratios:
    """The mean of several ratios of sums over groups, of those that have something below.

    Args:
        top: what is summed above, `[ratios, groups]`.
        bottom: what is summed below, likewise.
    """

    def __init__(self, top: Floats, bottom: Floats) -> None:
        self._top, self._bottom = top, bottom

    def score(self, weights: Floats) -> Floats:
        """Computes it for each column of `weights` `[groups, draws]`; NaN: undefined."""
        top, bottom = self._top @ weights, self._bottom @ weights
        return np.where((bottom > 0).any(0), mean_ratio(top, bottom), np.nan)

    def contributions(self) -> Floats:
        """What each group adds to it, `[groups]`; exact for a single ratio."""
        total = self._bottom.sum(1, keepdims=True)
        top, bottom, total = (each[total[:, 0] > 0] for each in (self._top, self._bottom, total))
        if len(total) == 1:
            return top[0] / total[0]
        derivative = ((top - top.sum(1, keepdims=True) / total * bottom) / total).mean(0)
        share = bottom.sum(0) / bottom.sum()
        return summing_to_value(self, derivative, share)


def make_instance_scorer(counts: InstanceCounts, metric: str) -> Ratios:
    """Makes the scorer of one of `metric_names`.

    Raises:
        ValueError: there is no such metric.
    """
    if metric in IMAGE_METRICS:
        values = image_scores(counts)[metric]
        is_defined = np.isfinite(values)
        return _summed(counts, np.where(is_defined, values, 0)[:, None], is_defined[:, None])
    kind, _, of_type = metric.partition(".")
    chosen = [counts.types.index(of_type)] if of_type else list(range(len(counts.types)))
    match kind:
        case "f_detection":
            tp, fp, fn = counts.found.T
            return _summed(counts, 2 * tp[:, None], (2 * tp + fp + fn)[:, None])
        case "f_type":
            tp, fp, fn, alone_fp, alone_fn = np.moveaxis(counts.found_of_type[:, chosen], -1, 0)
            return _summed(counts, 2 * tp, 2 * (tp + fp + fn) + alone_fp + alone_fn)
        case "pq" | "mpq_plus":
            tp, fp, fn, iou = np.moveaxis(counts.matched_of_type[:, chosen], -1, 0)
            return _summed(counts, iou, tp + (fp + fn) / 2)
        case _:
            raise ValueError(f"{metric} is not one of {', '.join(metric_names(counts))}")


def _summed(counts: InstanceCounts, top: Floats, bottom: Floats) -> Ratios:
    """Sums `[N, ratios]` over the images of each group."""
    group, n_groups = numbered(counts.group)

    def by_group(values: Floats) -> Floats:
        summed = np.zeros((n_groups, values.shape[1]))
        np.add.at(summed, group, values.astype(np.float64))
        return summed.T

    return Ratios(by_group(top), by_group(bottom))


def _panoptic(matched: Floats) -> Floats:
    """Computes PQ along the last axis (tp, fp, fn, iou)."""
    tp, fp, fn, iou = np.moveaxis(matched, -1, 0)
    return _ratio(iou, tp + (fp + fn) / 2)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Divides; NaN where there is nothing below."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def is_defined(counts: InstanceCounts, metric: str) -> bool:
    """Whether a metric has a value."""
    _, n_groups = numbered(counts.group)
    scored = make_instance_scorer(counts, metric).score(np.ones((n_groups, 1)))
    return bool(np.isfinite(scored).all())

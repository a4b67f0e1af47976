"""All encoders of one test set against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import median

import numpy as np

from eosin.results.multiplicity import holm, letters
from eosin.results.names import is_baseline
from eosin.results.permutation import paired_p_values
from eosin.results.resolution import Resolution, planned_difference, smallest_difference
from eosin.results.schema import EncoderStamp, Measurable, Metric
from eosin.results.statistics import LEVEL, Difference, Resampled, resample

_Pair = tuple[int, int]


@dataclass(kw_only=True, slots=True)
class Measured:
    """The predictions of one encoder on one test set, and on its images as they are."""

    stamp: EncoderStamp
    runs: list[Measurable] = field(default_factory=list[Measurable])
    clean: list[Measurable] = field(default_factory=list[Measurable])


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Encoders on one test set, best first, with every pair of them tested.

    Attributes:
        encoders: what was measured, by label, best first.
        sampled: their values on common draws, in the same order.
        tests: p-value and adjusted p-value of each pair of places, the first below the second.
        letters: by label; two share one exactly if they were not told apart.
        versus_clean: by label; minus the same encoder on the images as they are, corrected over the
            encoders of the test set.
    """

    encoders: Mapping[str, Measured]
    sampled: Resampled
    tests: Mapping[_Pair, tuple[float, float]]
    letters: Mapping[str, str]
    versus_clean: Mapping[str, Difference]

    @property
    def labels(self) -> list[str]:
        """Names of the encoders, best first."""
        return list(self.encoders)

    def metric(self, label: str) -> Metric:
        """Gives the value of an encoder with its interval."""
        return self.sampled.metric(self.labels.index(label))

    def difference(self, first: str, second: str) -> Difference:
        """Gives `first` minus `second`, tested and corrected over all pairs."""
        places = self.labels.index(first), self.labels.index(second)
        p, p_adjusted = self.tests[min(places), max(places)]
        return replace(self.sampled.difference(*places), p=p, p_adjusted=p_adjusted)

    def find_baseline(self, name: str, stamp: EncoderStamp) -> str | None:
        """Gives the label of a baseline, of namesakes the one that embeds as `stamp` does."""
        found = [label for label, each in self.encoders.items() if each.stamp.name == name]

        def unlike(label: str) -> int:
            other = self.encoders[label].stamp
            same = ("transform", "pooling", "precision")
            return sum(getattr(other, each) != getattr(stamp, each) for each in same)

        return min(found, key=unlike, default=None)

    def resolution(self, n_test: int, metric: str) -> Resolution:
        """Says what differences in the metric the test set can resolve."""
        n_groups = self.sampled.n_groups
        compared = [place for place, each in enumerate(self.labels) if not is_baseline(each)]
        if len(compared) < 2:
            compared = list(range(len(self.labels)))
        errors = [self.sampled.standard_error(*pair) for pair in combinations(compared, 2)]
        is_share = metric in ("accuracy", "balanced_accuracy")
        error = median(errors) if errors else 0.0
        is_known = bool(errors) and (n_groups < 2 or error > 0)
        # Of a perfect score the binomial would say that nothing varies.
        best = float(np.clip(self.sampled.values.max(), 0.5, 1 - 1 / (n_test + 2)))
        return Resolution(
            before=planned_difference(n_test, n_groups, best)[0] if is_share else None,
            observed=smallest_difference(error, n_groups) if is_known else None,
        )


def compare_pairs(encoders: Mapping[str, Measured], metric: str) -> Tested:
    """Scores all encoders on common draws and tests every pair of them.

    Raises:
        InputError: they were not predicted on the same samples.
    """
    with_clean = [label for label, each in encoders.items() if each.clean]
    runs = [each.runs for each in encoders.values()]
    sampled = resample([*runs, *(encoders[label].clean for label in with_clean)], metric)
    order = np.argsort(-sampled.values[: len(encoders)], kind="stable").tolist()
    names = list(encoders)
    ranked = [names[place] for place in order]
    pairs = list(combinations(range(len(ranked)), 2))
    by_rank = _chosen(sampled, order)
    tests = dict(zip(pairs, _corrected(by_rank, pairs), strict=True))
    differs = np.zeros((len(ranked), len(ranked)), dtype=np.bool_)
    for (first, second), (_, p_adjusted) in tests.items():
        differs[first, second] = differs[second, first] = p_adjusted < 1 - LEVEL
    return Tested(
        encoders={label: encoders[label] for label in ranked},
        sampled=by_rank,
        tests=tests,
        letters=dict(zip(ranked, letters(differs), strict=True)),
        versus_clean=_against_clean(sampled, names, with_clean),
    )


def _against_clean(
    sampled: Resampled, names: Sequence[str], with_clean: Sequence[str]
) -> dict[str, Difference]:
    pairs = [(names.index(label), len(names) + i) for i, label in enumerate(with_clean)]
    return {
        label: replace(sampled.difference(*pair), p=p, p_adjusted=p_adjusted)
        for label, pair, (p, p_adjusted) in zip(
            with_clean, pairs, _corrected(sampled, pairs), strict=True
        )
    }


def _corrected(sampled: Resampled, pairs: Sequence[_Pair]) -> list[tuple[float, float]]:
    p_values = paired_p_values(sampled.contributions, pairs)
    return list(zip(p_values, holm(p_values), strict=True))


def _chosen(sampled: Resampled, rows: Sequence[int]) -> Resampled:
    return Resampled(
        values=sampled.values[rows],
        draws=sampled.draws[rows],
        contributions=sampled.contributions[rows],
    )

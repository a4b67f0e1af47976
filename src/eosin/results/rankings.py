"""Encoders ranked over several data sets, by one task and protocol at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eosin.results.columns import Column
from eosin.results.names import is_baseline
from eosin.results.ranks import bars, critical_difference, friedman, mean_ranks, rank_intervals
from eosin.results.statistics import Resampled


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanRank:
    """The mean rank of an encoder over data sets, with its 95 % interval over test groups."""

    encoder: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Encoders over data sets, by one task and protocol.

    Attributes:
        task: which task.
        protocol: which protocol and version.
        label_fraction: part of the labels that was used.
        shift: what was done to the test images.
        data: the data sets.
        ranks: best first.
        friedman: p-value of Friedman's test that all rank alike; None for two encoders.
        critical: Nemenyi's critical difference of mean ranks at 5 %.
        bars: stretches of mean ranks that it does not tell apart.
        left_out: encoders that were not measured on all of the data sets.
    """

    task: str
    protocol: str
    label_fraction: float
    shift: str
    data: tuple[str, ...]
    ranks: tuple[MeanRank, ...]
    friedman: float | None
    critical: float
    bars: tuple[tuple[float, float], ...]
    left_out: tuple[str, ...] = ()


def rank_over_data(
    sampled: Mapping[Column, Resampled], labels: Mapping[Column, Sequence[str]]
) -> Iterator[Ranking]:
    """Ranks the encoders that were measured on two data sets or more; baselines take no part.

    Args:
        sampled: for each test set the values of its encoders.
        labels: for each test set the names of its encoders, in the same order.
    """
    settings: dict[tuple[str, str, float, str], dict[str, list[Column]]] = {}
    for column in sampled:
        family = column.family
        setting = (family.task, family.protocol, family.label_fraction, column.shift)
        settings.setdefault(setting, {}).setdefault(family.data, []).append(column)
    for setting, by_data in settings.items():
        # A data set with several divisions would count twice.
        columns = [found[0] for found in by_data.values() if len(found) == 1]
        candidates = dict.fromkeys(
            label for each in columns for label in labels[each] if not is_baseline(label)
        )
        everywhere = [each for each in candidates if all(each in labels[c] for c in columns)]
        if len(columns) >= 2 and len(everywhere) >= 2:
            yield _rank(setting, columns, everywhere, list(candidates), sampled, labels)


def _rank(
    setting: tuple[str, str, float, str],
    columns: Sequence[Column],
    encoders: Sequence[str],
    candidates: Sequence[str],
    sampled: Mapping[Column, Resampled],
    labels: Mapping[Column, Sequence[str]],
) -> Ranking:
    rows = {column: [list(labels[column]).index(each) for each in encoders] for column in columns}
    values = [sampled[column].values[rows[column]] for column in columns]
    means = mean_ranks(values)
    lows, highs = rank_intervals([sampled[column].draws[rows[column]] for column in columns])
    ranks = [
        # Resampling pulls ranks to the middle, so that the best could lie outside its interval.
        MeanRank(
            encoder=encoder,
            value=float(mean),
            low=float(min(low, mean)),
            high=float(max(high, mean)),
        )
        for encoder, mean, low, high in zip(encoders, means, lows, highs, strict=True)
    ]
    critical = critical_difference(len(encoders), len(columns))
    task, protocol, label_fraction, shift = setting
    return Ranking(
        task=task,
        protocol=protocol,
        label_fraction=label_fraction,
        shift=shift,
        data=tuple(column.family.data for column in columns),
        ranks=tuple(sorted(ranks, key=lambda each: each.value)),
        friedman=friedman(values),
        critical=critical,
        bars=tuple(bars(means.tolist(), critical)),
        left_out=tuple(each for each in candidates if each not in encoders),
    )

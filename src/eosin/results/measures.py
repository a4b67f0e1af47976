"""Which scorer a metric has, of classes or of instances."""

from collections.abc import Sequence

from eosin.results.instance_counts import InstanceCounts
from eosin.results.instance_scores import make_instance_scorer
from eosin.results.schema import Measurable
from eosin.results.scorers import Additive, Areas, Counts, Tally


def make_scorers(runs: Sequence[Measurable], metric: str) -> list[Additive]:
    """Makes the scorer of a metric for each run."""
    return [_make_scorer(run, metric) for run in runs]


def _make_scorer(run: Measurable, metric: str) -> Additive:
    if isinstance(run, InstanceCounts):
        return make_instance_scorer(run, metric)
    return Areas(run) if metric == "auroc" else Counts(Tally(run), metric)

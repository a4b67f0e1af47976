"""The words and figures that tables, sentences and charts share."""

from eosin.results.comparison import COLOUR_BASELINE, Cell, Column, Comparison
from eosin.results.schema import Metric
from eosin.results.statistics import Difference

METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
}


def interval_text(metric: Metric) -> str:
    """Writes a value with its interval: `0.861 [0.842, 0.879]`."""
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"


def difference_text(difference: Difference) -> str:
    """Writes a difference with its interval: `+0.120 [+0.083, +0.157]`."""
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def column_lines(column: Column, comparison: Comparison) -> tuple[str, str, str]:
    """Names a column: data set, task with protocol and labels used, and what was done to the test.

    A data set that occurs with several splits or contents is followed by the hash that tells them
    apart.
    """
    family = column.family
    namesakes = {each.family for each in comparison.columns if each.family.data == family.data}
    data = family.data
    if len({each.manifest_sha256 for each in namesakes}) > 1:
        data += f" (files {family.manifest_sha256[:8]})"
    elif len({each.split_sha256 for each in namesakes}) > 1:
        data += f" (split {family.split_sha256[:8]})"
    how = f"{family.task}, {family.protocol}"
    if family.label_fraction != 1:
        how += f", {family.label_fraction:.3g} of the labels"
    shift = "images as they are" if column.shift == "none" else column.shift
    return data, how, shift


def standing(cell: Cell) -> str:
    """Says where a cell stands in its column: `best`, `tied` with the best, or nothing."""
    if cell.behind is None:
        return "best"
    return "" if cell.behind.is_real else "tied"


def baseline_word(name: str) -> str:
    """Shortens a baseline's name for a cell: `random` or `colour`."""
    return "colour" if name == COLOUR_BASELINE else "random"

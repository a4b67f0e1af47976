"""The words and figures that tables, sentences and charts share."""

from math import isinf

from eosin.results.columns import Column
from eosin.results.comparison import Cell, Comparison
from eosin.results.names import COLOUR_BASELINE
from eosin.results.rankings import MeanRank, Ranking
from eosin.results.schema import Metric
from eosin.results.statistics import Difference

METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "dice": "Dice",
    "aji": "AJI",
    "aji_plus": "AJI+",
    "dq": "DQ",
    "sq": "SQ",
    "pq": "PQ",
    "mpq": "mPQ",
    "mpq_plus": "mPQ+",
    "f_detection": "detection F1",
    "f_type": "type F1",
}
CALIBRATION_NAMES = {"ece": "calibration error", "brier": "Brier score"}

_ENOUGH_DATA = 10


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
    if family.metric != comparison.metric:
        how += f" ({METRIC_NAMES[family.metric]})"
    return data, how, shift_text(column.shift)


def shift_text(shift: str) -> str:
    """Says what was done to the test images."""
    return "images as they are" if shift == "none" else shift


def resolution_text(column: Column, comparison: Comparison) -> str:
    """Says which differences a column can resolve: `resolves 0.021`; empty where nothing is known.

    With one group nothing is resolved.
    """
    found = comparison.resolutions.get(column)
    if found is None or found.observed is None:
        return ""
    return "resolves nothing" if isinf(found.observed) else f"resolves {found.observed:.3f}"


def ranking_setting(ranking: Ranking) -> str:
    """Names what encoders were ranked by."""
    how = f"{ranking.task}, {ranking.protocol}"
    if ranking.label_fraction != 1:
        how += f", {ranking.label_fraction:.3g} of the labels"
    if ranking.shift != "none":
        how += f", {ranking.shift}"
    return how


def ranking_title(ranking: Ranking) -> str:
    """Names what encoders were ranked by, and over which data sets."""
    return f"{ranking_setting(ranking)}: mean rank over {', '.join(ranking.data)}"


def ranking_lines(ranking: Ranking) -> list[str]:
    """Says what ranks over data sets show, and how little they can show over few."""
    count = len(ranking.data)
    said = [
        f"Over {count} data sets, mean ranks must differ by more than {ranking.critical:.2f} to be "
        "told apart (Nemenyi, 5 %)"
    ]
    if ranking.friedman is not None:
        said[0] += f"; that all rank alike has p = {ranking.friedman:.3f} (Friedman)"
    said[0] += "." if count >= _ENOUGH_DATA else ", which is rough for fewer than ten data sets."
    if ranking.left_out:
        said.append(f"Not measured on all of them: {', '.join(ranking.left_out)}.")
    return said


def rank_text(rank: MeanRank) -> str:
    """Writes a mean rank with its interval: `1.50 [1.00, 2.25]`."""
    return f"{rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}]"


def standing(cell: Cell) -> str:
    """Says where a cell stands in its column: `best`, `tied` with the best, or nothing."""
    if cell.behind is None:
        return "best"
    return "" if cell.behind.is_real else "tied"


def baseline_word(name: str) -> str:
    """Shortens a baseline's name for a cell: `random` or `colour`."""
    return "colour" if name == COLOUR_BASELINE else "random"

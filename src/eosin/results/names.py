"""What encoders are called in a comparison, and which of them are baselines."""

from collections.abc import Sequence

from eosin.results.columns import family_of
from eosin.results.schema import EncoderStamp, Result

COLOUR_BASELINE = "colour_histogram"
RANDOM_PREFIX = "random/"


def is_baseline(encoder: str) -> bool:
    """Whether a row is there to be beaten: random weights or the colour histogram."""
    return encoder.startswith((RANDOM_PREFIX, COLOUR_BASELINE))


def random_baseline(stamp: EncoderStamp) -> str:
    """Names the random encoder of the same architecture."""
    named = stamp.name.removeprefix(RANDOM_PREFIX).removeprefix("timm/").partition(".")[0]
    return RANDOM_PREFIX + (stamp.architecture or named)


def encoder_labels(results: Sequence[Result]) -> dict[str, str]:
    """Names the encoder of each row: `row_id` to its name, and what tells it from namesakes.

    A random encoder drawn with several seeds, or a method trained with several, is one encoder
    with several weights as long as each seed and draw occurs once.
    """
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.encoder.name, []).append(result)
    labels: dict[str, str] = {}
    for name, rows in by_name.items():
        repeats = {(family_of(row), row.data.shift, row.seed, row.draw) for row in rows}
        stamps = list(dict.fromkeys(row.encoder for row in rows))
        for row in rows:
            is_one = len(repeats) == len(rows)
            labels[row.row_id] = name if is_one else name + _distinction(row.encoder, stamps)
    return labels


def _distinction(stamp: EncoderStamp, stamps: Sequence[EncoderStamp]) -> str:
    parts = [f"weights {stamp.weights_sha256[:8]}", stamp.transform, stamp.pooling, stamp.precision]
    others = [
        (each.weights_sha256, each.transform, each.pooling, each.precision) for each in stamps
    ]
    varying = [
        part
        for part, values in zip(parts, zip(*others, strict=True), strict=True)
        if len(set(values)) > 1
    ]
    return f" ({', '.join(varying)})"

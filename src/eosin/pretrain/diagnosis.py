"""What the log of a run says about it: whether it has collapsed, and when its encoder was best.

Thresholds are shares, so that they hold for any number of outputs and any width.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]

EARLY_SHARE = 0.2
"""Share of a run that is not judged: a warm-up and an empty queue look like faults."""
LINES = 3
"""Lines that must agree about outputs: one batch may lie at a limit by chance."""
# Of ln K. A collapsed loss keeps to it within rounding and the last noise; 0.2 % is 0.02 nats for
# 65,536 outputs, a tenth of what a healthy run has gained after its first epochs.
_CHANCE_MARGIN = 0.002
# Entropy of logits with standard deviation s is ln K - s^2/2: 1 % of ln 65,536 is s = 0.47, less
# than one step of a confident output. A new DINO head has s = 1.6 and lies 11 % below.
_UNIFORM_SHARE = 0.99
# Entropy and divergence below 1 % of ln K: all outputs but one get 1 % of the probability together.
_DOMINATED_SHARE = 0.01
# 1 - 0.05^2: the mean cosine of two tiles is above 0.9975.
_COLLAPSED_STD = 0.05
# A few directions cannot tell more than a few kinds of tissue apart. Convolutions begin with few
# (their ReLU outputs share one large mean), so that few are a fault only where there were more.
_FEW_DIRECTIONS, _FEW_SHARE, _FALLEN = 4.0, 0.05, 0.5


def diagnose(
    lines: Sequence[Line],
    *,
    updates: int,
    chance_loss: float | None = None,
    directions: int | None = None,
) -> str:
    """Says in one sentence what is wrong with a run and what to do, or nothing.

    Losses and the outputs of a teacher are judged by the last three lines that have them (a loss
    beside a teacher's entropy by all), and what is measured on fixed tiles by the last one. A loss
    that is not finite is the loop's affair.

    Args:
        lines: of the log, oldest first.
        updates: length of the run; its first fifth is not judged.
        chance_loss: what the loss of a collapsed model is, the logarithm of the number of outputs,
            where the method has such a value.
        directions: greatest value that RankMe could have: the lesser of tiles and dimensions.
    """
    if not lines or lines[-1]["update"] <= EARLY_SHARE * updates:
        return ""
    judged = [line for line in lines if line["update"] > EARLY_SHARE * updates]
    found = _outputs(judged, chance_loss) if chance_loss is not None else ""
    return found or _embeddings(judged) or _dimensions(lines, directions)


def best_update(lines: Iterable[Line]) -> int | None:
    """The update with the highest kNN accuracy on labelled images, the first of equal ones.

    Returns:
        None where no line has a `knn`.
    """
    scored = [line for line in lines if _is_number(line.get("knn"))]
    return max(scored, key=lambda line: line["knn"])["update"] if scored else None


def _outputs(lines: Sequence[Line], chance_loss: float) -> str:
    """Judges outputs over which the method has a distribution.

    Caron et al. 2021, arXiv 2104.14294, section 5.3: a divergence of 0 is a constant output; the
    teacher's entropy is then 0 where nothing centres it and ln K where nothing sharpens it.
    """
    entropies, divergences = _last(lines, "teacher_entropy"), _last(lines, "divergence")
    if entropies and min(entropies) > _UNIFORM_SHARE * chance_loss:
        return (
            f"the teacher's outputs are uniform (entropy {entropies[-1]:.3f} of at most "
            f"{chance_loss:.3f}), so it says the same of every tile. Lower --method.teacher-temp "
            "and --method.warmup-teacher-temp, or lengthen --method.teacher-temp-warmup."
        )
    least = _DOMINATED_SHARE * chance_loss
    if entropies and divergences and max(*entropies, *map(abs, divergences)) < least:
        return (
            f"one output has all the probability for every tile (the teacher's entropy is "
            f"{entropies[-1]:.3f}, the student's divergence {divergences[-1]:.3f}): the centre "
            "does not keep up. Lower --method.center-momentum or raise --method.teacher-temp."
        )
    # Entropy and divergence may add up to ln K for a while: the loss is below it as long as the
    # centre is new, and passes it on its way up and down again. Only a run that stays is lost.
    losses = [line["loss"] for line in lines if _is_number(line.get("loss"))]
    losses = losses if entropies else losses[-LINES:]
    if len(losses) >= LINES and all(
        abs(loss - chance_loss) < _CHANCE_MARGIN * chance_loss for loss in losses
    ):
        return (
            f"the loss stays at {chance_loss:.3f}, the logarithm of the number of outputs, which a "
            "model has that tells no tiles apart. Raise the learning rate, lower the temperature, "
            "or check that the tiles differ."
        )
    return ""


def _embeddings(lines: Sequence[Line]) -> str:
    stds = _last(lines, "embedding_std", count=1)
    if not stds or stds[0] >= _COLLAPSED_STD:
        return ""
    return (
        f"all tiles get nearly the same embedding (spread {stds[0]:.3f} of 1): the encoder has "
        "collapsed. Lower the learning rate or lengthen the warm-up."
    )


def _dimensions(lines: Sequence[Line], directions: int | None) -> str:
    """Judges how many directions the embeddings use; Jing et al. 2022, arXiv 2110.09348."""
    ranks = [line["rankme"] for line in lines if _is_number(line.get("rankme"))]
    few = max(_FEW_DIRECTIONS, _FEW_SHARE * (directions or 0))
    if len(ranks) < 2 or ranks[-1] >= few or ranks[-1] >= _FALLEN * max(ranks):
        return ""
    return (
        f"the embeddings have shrunk to {ranks[-1]:.1f} directions (RankMe; it was "
        f"{max(ranks):.1f}): the dimensions are collapsing. Lower the learning rate, or strengthen "
        "the augmentations or, of Barlow Twins, --method.lambd."
    )


def _last(lines: Sequence[Line], name: str, count: int = LINES) -> list[float]:
    """The last `count` values of a metric, or none where there are not so many."""
    values: list[float] = []
    for line in reversed(lines):
        if _is_number(line.get(name)):
            values.append(line[name])
            if len(values) == count:
                return values[::-1]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)

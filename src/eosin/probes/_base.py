"""What every classifier of embeddings takes and gives.

A head is a frozen dataclass of its settings, which a protocol holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Embeddings with labels.

    Attributes:
        features: embeddings [N, D].
        labels: their classes [N].
        groups: patient, slide or source image of each [N].
        ids: one unique name each.
    """

    features: Matrix
    labels: Labels
    groups: NDArray[np.str_]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """What is fitted on, and what the fit is judged by."""

    fit: Samples
    held_out: Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What a head may learn from.

    Attributes:
        train: all that may be fitted on.
        folds: what hyper-parameters and epochs are chosen on; empty: nothing is chosen.
        n_classes: columns of what is predicted; a class may be absent.
    """

    train: Samples
    folds: tuple[Fold, ...]
    n_classes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A fitted head.

    Attributes:
        predict: gives the probability of each class [M, classes] for embeddings [M, D].
        chosen: hyper-parameters and how good they were, as plain JSON values.
    """

    predict: Callable[[Matrix], Matrix]
    chosen: Mapping[str, Any]


class Head(Protocol):
    """The settings of a classifier, and how it is fitted."""

    is_random: ClassVar[bool]
    """Whether another seed gives another classifier."""

    def fit(self, material: Material, seed: int) -> Fitted:
        """Chooses hyper-parameters on the folds and fits."""
        ...

"""What every task takes and gives: one encoder's embeddings of one dataset, and result rows.

A module of this folder is a choice. It has a `Config` with the fields `protocol` and `seed`, and
`run(config, embedded)`, which gives a row and its predictions for each kind of test images.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.datasets._division import divide
from eosin.errors import InputError
from eosin.protocols import Protocol
from eosin.provenance import stamp
from eosin.results.schema import DataStamp, EncoderStamp, Predictions, ProtocolStamp, Result
from eosin.results.statistics import measure

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]
Row = tuple[Result, Predictions]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The images of a split and their embeddings [N, D]."""

    images: LabelledImages
    embeddings: Matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """One encoder's embeddings of one dataset.

    Attributes:
        encoder: which encoder.
        data: which dataset.
        train: what is fitted on.
        valid: what hyper-parameters are chosen on, where the dataset has such a split.
        tests: what is scored, by what was done to the images: `none` or a shift.
    """

    encoder: EncoderStamp
    data: DataStamp
    train: Split
    valid: Split | None
    tests: Mapping[str, Split]

    @property
    def n_classes(self) -> int:
        """How many classes the dataset has."""
        return len(self.data.classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Embeddings to fit on, and embeddings of other groups to choose a hyper-parameter by."""

    features: Matrix
    labels: Labels
    held_out_features: Matrix
    held_out_labels: Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The chosen hyper-parameter, and the score that it was chosen for."""

    value: Any
    balanced_accuracy: float
    split: str


def choose(
    values: Sequence[Any],
    predict: Callable[[Fold], Iterable[Matrix]],
    embedded: Embedded,
    protocol: Protocol,
    seed: int,
) -> Choice:
    """Chooses the value with the best mean balanced accuracy on held-out parts of training data.

    Args:
        values: of the hyper-parameter; of equally good ones the first is chosen.
        predict: fits on a fold and gives the scores [N, classes] of its held-out part, once for
            each of `values` and in their order.
        embedded: of it only `train` and `valid` are used.
        protocol: how many folds.
        seed: of the folds.

    Raises:
        InputError: the training data are too few to hold a part out.
    """
    folds = _folds(embedded, protocol, seed)
    table = [
        [balanced_accuracy(scores, fold.held_out_labels) for scores in predict(fold)]
        for fold in folds
    ]
    if not table:
        raise InputError(
            f"{embedded.data.name}: the training images are of too few groups to hold some out for "
            "choosing hyper-parameters; add images."
        )
    means = np.mean(table, axis=0)
    best = int(np.argmax(means))
    whole_groups = f"{len(table)} folds of whole groups of the training split"
    split = whole_groups if embedded.valid is None else "validation split"
    return Choice(value=values[best], balanced_accuracy=float(means[best]), split=split)


def balanced_accuracy(scores: Matrix, labels: Labels) -> float:
    """Averages the share of hits over the classes that occur in `labels`."""
    hits = scores.argmax(1) == labels
    return float(np.mean([hits[labels == each].mean() for each in np.unique(labels)]))


def score(
    task: str,
    predict: Callable[[Matrix], Matrix],
    selection: Mapping[str, Any],
    embedded: Embedded,
    protocol: Protocol,
    seed: int,
    started: float,
) -> list[Row]:
    """Scores a fitted probe once on every kind of test images.

    Args:
        task: name of the task.
        predict: gives the scores [N, classes] of embeddings [N, D].
        selection: how hyper-parameters were chosen, and which.
        embedded: of it the tests are used.
        protocol: by which the probe was fitted.
        seed: by which the probe was fitted.
        started: `time.perf_counter()` before the selection began.
    """
    rows: list[Row] = []
    for shift, test in embedded.tests.items():
        scores = predict(test.embeddings)
        predictions = Predictions(
            sample=np.array(test.images.ids),
            group=test.images.groups,
            label=test.images.labels,
            predicted=scores.argmax(1).astype(np.int64),
            scores=scores,
        )
        result = Result(
            task=task,
            protocol=ProtocolStamp(id=protocol.name, version=protocol.version),
            encoder=embedded.encoder,
            data=replace(embedded.data, shift=shift),
            seed=seed,
            selection=dict(selection),
            metrics=measure(predictions),
            seconds=time.perf_counter() - started,
            provenance=stamp(),
        )
        rows.append((result, predictions))
    return rows


def _folds(embedded: Embedded, protocol: Protocol, seed: int) -> Iterator[Fold]:
    features, labels = embedded.train.embeddings, embedded.train.images.labels
    if embedded.valid is not None:
        yield Fold(
            features=features,
            labels=labels,
            held_out_features=embedded.valid.embeddings,
            held_out_labels=embedded.valid.images.labels,
        )
        return
    shares = [1 / protocol.folds] * protocol.folds
    part = divide(labels, embedded.train.images.groups, shares, seed)
    for number in range(protocol.folds):
        out = part == number
        # With very few groups a fold may be empty, or leave a single class to fit on.
        if out.any() and len(np.unique(labels[~out])) > 1:
            yield Fold(
                features=features[~out],
                labels=labels[~out],
                held_out_features=features[out],
                held_out_labels=labels[out],
            )

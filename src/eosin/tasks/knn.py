"""Nearest neighbours of frozen embeddings, by cosine."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eosin.probes.knn import KnnProbe, Matrix, find_neighbours, vote
from eosin.protocols import find_protocol
from eosin.tasks._base import Embedded, Fold, Row, choose, score


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the nearest-neighbour classifier."""

    protocol: str = "strict"
    """Named settings: the numbers of neighbours to choose from, and what they are chosen by."""
    seed: int = 0
    """Seed of the folds that the number is chosen on."""


def run(config: Config, embedded: Embedded) -> list[Row]:
    """Chooses the number of neighbours and scores every kind of test images."""
    started = time.perf_counter()
    protocol = find_protocol(config.protocol)
    n_classes, temperature = embedded.n_classes, protocol.knn_temperature

    def centre_of(features: Matrix) -> Matrix:
        return features.mean(0) if protocol.knn_is_centred else np.zeros_like(features[0])

    def predict(fold: Fold) -> Iterator[Matrix]:
        most, centre = max(protocol.knn_ks), centre_of(fold.features)
        queries, keys = fold.held_out_features - centre, fold.features - centre
        cosines, found = find_neighbours(queries, keys, most)
        for k in protocol.knn_ks:
            yield vote(cosines[:, :k], fold.labels[found[:, :k]], n_classes, temperature)

    choice = choose(protocol.knn_ks, predict, embedded, protocol, config.seed)
    centre = centre_of(embedded.train.embeddings)
    probe = KnnProbe(
        features=embedded.train.embeddings - centre,
        labels=embedded.train.images.labels,
        n_classes=n_classes,
        k=choice.value,
        temperature=temperature,
    )
    selection = {
        "split": choice.split,
        "balanced_accuracy": choice.balanced_accuracy,
        "k": choice.value,
    }
    return score(
        "knn",
        lambda features: probe.predict(features - centre),
        selection,
        embedded,
        protocol,
        config.seed,
        started,
    )

"""Linear probe: logistic regression on frozen embeddings."""

import time
from dataclasses import dataclass

from eosin.probes.linear import fit, fit_path
from eosin.protocols import find_protocol
from eosin.tasks._base import Embedded, Fold, Row, choose, score


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of the linear probe."""

    protocol: str = "strict"
    """Named settings: the penalties to choose from, and what they are chosen by."""
    seed: int = 0
    """Seed of the folds that the penalty is chosen on."""


def run(config: Config, embedded: Embedded) -> list[Row]:
    """Chooses the penalty, fits on all training images, and scores every kind of test images."""
    started = time.perf_counter()
    protocol = find_protocol(config.protocol)
    cs, n_classes, most = protocol.linear_cs, embedded.n_classes, protocol.linear_max_iterations

    def predict(fold: Fold):
        for probe in fit_path(fold.features, fold.labels, n_classes, cs, most):
            yield probe.predict(fold.held_out_features)

    choice = choose(cs, predict, embedded, protocol, config.seed)
    train = embedded.train
    probe = fit(train.embeddings, train.images.labels, n_classes, choice.value, most)
    selection = {
        "split": choice.split,
        "balanced_accuracy": choice.balanced_accuracy,
        "c": choice.value,
        "has_converged": probe.has_converged,
    }
    return score("linear", probe.predict, selection, embedded, protocol, config.seed, started)

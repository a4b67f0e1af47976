"""Logistic regression, its penalty chosen on held-out embeddings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eosin.probes._base import Fitted, Fold, Material
from eosin.probes._criteria import CRITERIA
from eosin.probes.linear import fit, fit_path


@dataclass(frozen=True, kw_only=True)
class PenaltyPath:
    """Logistic regression with an L2 penalty from a list, fitted on everything in the end.

    With 45 values from 1e-6 to 1e5, as they are and by accuracy, it is DINOv2's
    (dinov2/eval/log_regression.py at b8931f7: lines 30-33 the values, `sweep_C_values` the
    choice, `eval_log_regression` the fit on both parts).

    Attributes:
        cs: inverse strengths of the squared L2 penalty, against the summed cross-entropy, rising;
            of equally good ones the first is chosen, and without folds there may be only one.
        max_iterations: of the optimiser, for each of them.
        standardises: whether the embeddings are brought to unit variance first.
        criterion: `accuracy`, `balanced_accuracy` or `macro_f1`: its mean over the folds.
    """

    is_random: ClassVar[bool] = False

    cs: tuple[float, ...]
    max_iterations: int
    standardises: bool
    criterion: str

    def fit(self, material: Material, seed: int) -> Fitted:
        """Chooses the penalty on the folds, and fits on all of `material.train`."""
        chosen: dict[str, float | bool] = {}
        best = 0
        if material.folds:
            table = [list(self._scores(fold, material.n_classes)) for fold in material.folds]
            means = np.mean(table, axis=0)
            best = int(np.argmax(means))
            chosen[self.criterion] = float(means[best])
        else:
            assert len(self.cs) == 1, "a penalty cannot be chosen without folds"
        train = material.train
        probe = fit(
            train.features,
            train.labels,
            material.n_classes,
            self.cs[best],
            self.max_iterations,
            standardises=self.standardises,
        )
        chosen |= {"c": self.cs[best], "has_converged": probe.has_converged}
        return Fitted(predict=probe.predict, chosen=chosen)

    def _scores(self, fold: Fold, n_classes: int) -> Iterator[float]:
        features, labels = fold.fit.features, fold.fit.labels
        path = fit_path(
            features,
            labels,
            n_classes,
            self.cs,
            self.max_iterations,
            standardises=self.standardises,
        )
        for probe in path:
            predicted = probe.predict(fold.held_out.features).argmax(1)
            yield CRITERIA[self.criterion](predicted, fold.held_out.labels)

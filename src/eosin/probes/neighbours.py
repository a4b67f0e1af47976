"""Nearest neighbours, their number chosen on held-out embeddings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from eosin.probes._base import Fitted, Labels, Material, Matrix, Samples
from eosin.probes._criteria import CRITERIA
from eosin.probes.knn import find_neighbours, vote


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The vote of the nearest embeddings of known classes.

    By a majority and not centred it is THUNDER's (thunder-bench 0.2.2, tasks/image_retrieval.py
    lines 52-86, knn_classification.py); by a majority of 20, centred, UNI's
    (uni/downstream/eval_patch_features/fewshot.py at 42715ef, `eval_knn`); weighted by
    exp(cosine / temperature) DINOv2's (dinov2/eval/knn.py at b8931f7, `KnnModule`).

    Attributes:
        ks: numbers of neighbours to choose from; of equally good ones the first is chosen, and
            without folds there may be only one. Where fewer embeddings are known, all vote.
        vote: `exp`: each neighbour with the weight exp(cosine / temperature), or exp(-distance /
            temperature) where it is Euclidean; `majority`: all alike. Of equal classes the first
            is predicted.
        temperature: of `exp`.
        centres: whether the mean of the known embeddings is subtracted first.
        distance: `cosine`, or `euclidean` between unit vectors, which has the same order.
        criterion: `accuracy`, `balanced_accuracy` or `macro_f1`: its mean over the folds.
    """

    is_random: ClassVar[bool] = False

    ks: tuple[int, ...]
    vote: Literal["exp", "majority"]
    temperature: float = 0.07
    centres: bool = False
    distance: Literal["cosine", "euclidean"] = "cosine"
    criterion: str

    def fit(self, material: Material, seed: int) -> Fitted:
        """Chooses the number on the folds; all of `material.train` is searched in the end."""
        chosen: dict[str, float | int] = {}
        k = self.ks[0]
        if material.folds:
            table = [
                [
                    CRITERIA[self.criterion](shares.argmax(1), fold.held_out.labels)
                    for shares in self._shares(
                        fold.fit, fold.held_out.features, self.ks, material.n_classes
                    )
                ]
                for fold in material.folds
            ]
            means = np.mean(table, axis=0)
            k = self.ks[int(np.argmax(means))]
            chosen[self.criterion] = float(means.max())
        else:
            assert len(self.ks) == 1, "a number of neighbours cannot be chosen without folds"

        def predict(features: Matrix) -> Matrix:
            return next(self._shares(material.train, features, (k,), material.n_classes))

        return Fitted(predict=predict, chosen={**chosen, "k": k})

    def _shares(
        self, known: Samples, queries: Matrix, ks: tuple[int, ...], n_classes: int
    ) -> Iterator[Matrix]:
        keys = known.features
        if self.centres:
            centre = keys.mean(0)
            queries, keys = queries - centre, keys - centre
        cosines, found = find_neighbours(queries, keys, max(ks))
        labels: Labels = known.labels[found]
        for k in ks:
            yield self._vote(cosines[:, :k], labels[:, :k], n_classes)

    def _vote(self, cosines: Matrix, labels: Labels, n_classes: int) -> Matrix:
        if self.vote == "exp":
            nearness = cosines
            if self.distance == "euclidean":
                nearness = -np.sqrt(np.maximum(2 - 2 * cosines, 0))
            return vote(nearness, labels, n_classes, self.temperature)
        return vote(np.zeros_like(cosines), labels, n_classes, 1.0)

"""Few shots: the class means of a few labelled embeddings, over many draws of them.

SimpleShot (Wang et al. 2019, arXiv 1911.04623) as in thunder-bench 0.2.2, tasks/simple_shot.py: the
mean of all drawn embeddings is subtracted, and an embedding is of the class whose mean has the
highest cosine with it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from eosin.errors import InputError
from eosin.probes._base import Labels, Matrix

# Episodes that are scored at once, by how many cosines they give.
_COSINES_AT_ONCE = 2**24


def draw_support(
    labels: Labels, n_classes: int, shots: int, episodes: int, seed: int
) -> NDArray[np.int64]:
    """Draws labelled samples for each episode, of each class the same number, none of them twice.

    Episode e of a seed is the same however many follow it.

    Args:
        labels: of the samples to draw from [N].
        n_classes: all of them must occur `shots` times.
        shots: samples of each class.
        episodes: how often they are drawn.
        seed: another seed gives other draws.

    Returns:
        Numbers of samples [episodes, classes, shots].

    Raises:
        InputError: a class has too few samples.
    """
    of_class = [np.flatnonzero(labels == each) for each in range(n_classes)]
    fewest = min(len(each) for each in of_class)
    if fewest < shots:
        raise InputError(
            f"{shots} shots need {shots} labelled images of each class; one class has {fewest}. "
            "Ask for fewer shots or use more of the labels."
        )
    drawn = np.empty((episodes, n_classes, shots), dtype=np.int64)
    for episode in range(episodes):
        generator = np.random.default_rng([seed, episode])
        for each, candidates in enumerate(of_class):
            chosen = generator.choice(len(candidates), shots, replace=False)
            drawn[episode, each] = candidates[chosen]
    return drawn


def fit_prototypes(features: Matrix, support: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Gives the prototypes of each episode.

    Args:
        features: embeddings to draw from [N, D].
        support: what was drawn [E, classes, shots].

    Returns:
        The mean of each episode's support [E, D], and the unit vectors from it towards the mean of
        each class [E, classes, D].
    """
    of_class = features[support].mean(2, dtype=np.float32)
    centre = of_class.mean(1)
    return centre, _to_unit_length(of_class - centre[:, None])


def predict_episodes(
    features: Matrix, support: NDArray[np.int64], queries: Matrix
) -> Iterator[NDArray[np.int64]]:
    """Predicts the class of every query in every episode.

    Args:
        features: embeddings to draw from [N, D].
        support: what was drawn [E, classes, shots].
        queries: embeddings to classify [M, D].

    Yields:
        Classes [episodes, M] of a few episodes at a time, in order; of equally near classes the
        first.
    """
    n_classes, shots = support.shape[1:]
    values = max(n_classes * len(queries), n_classes * shots * features.shape[1])
    step = max(1, _COSINES_AT_ONCE // values)
    for start in range(0, len(support), step):
        centre, prototypes = fit_prototypes(features, support[start : start + step])
        # The length of a centred query changes all its cosines alike.
        offset = np.einsum("ed,ecd->ec", centre, prototypes)
        scores = prototypes.reshape(-1, prototypes.shape[2]) @ queries.T
        by_class = scores.reshape(len(prototypes), n_classes, -1) - offset[:, :, None]
        yield by_class.argmax(1)


def _to_unit_length(vectors: Matrix) -> Matrix:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)

"""Few-shot classification: class means of a few labelled images, over many draws of them.

The score of a row is the mean over the draws, which is what one choice of labelled images gives on
average; their spread is in its `selection`. A majority vote of all draws would be the score of an
ensemble that nobody has.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.errors import TooFewImages
from eosin.probes.prototypes import draw_support, predict_episodes
from eosin.protocols._base import FewShot, Protocol
from eosin.tasks._base import Inputs, Job, Matrix, Row, labelled_parts, score

TRAINS_THE_ENCODER = False
TAKES_INSTANCES = False
_PERCENTILES = (5, 25, 50, 75, 95)

Counts = NDArray[np.int64]


def offers(protocol: Protocol) -> bool:
    """Whether the protocol says how many shots."""
    return protocol.few_shot is not None


def is_random(protocol: Protocol) -> bool:
    """Whether another seed gives other draws."""
    return True


def row_names(job: Job, splits: Mapping[str, LabelledImages]) -> tuple[str, ...]:
    """What its rows are called: `few_shot_16`, for as many shots as each class has images."""
    return tuple(f"few_shot_{shots}" for shots in _shots(job, splits))


def run(job: Job, inputs: Inputs) -> list[Row]:
    """Draws the episodes, and scores every kind of test images with the same draws.

    Raises:
        TooFewImages: a class has too few images for the fewest shots.
    """
    embedded, settings = inputs.embedded, _settings(job)
    index = labelled_parts(inputs.splits, job.label_fraction, job.draw)["train"]
    features = embedded.train.embeddings[index]
    labels = embedded.train.images.labels[index]
    rows: list[Row] = []
    for shots in _shots(job, inputs.splits):
        started = time.perf_counter()
        support = draw_support(labels, embedded.n_classes, shots, settings.episodes, job.seed)
        for shift in embedded.tests:
            test = embedded.tests[shift]
            shares, accuracies = _score_episodes(
                features, support, test.embeddings, test.images.labels
            )
            spread = np.percentile(accuracies, _PERCENTILES).tolist()
            selection = {
                "split": "nothing is chosen",
                "n_fit": shots * embedded.n_classes,
                "balanced_accuracy_percentiles": dict(
                    zip(map(str, _PERCENTILES), spread, strict=True)
                ),
            }
            rows.append(
                score(
                    f"few_shot_{shots}",
                    shares,
                    test.images,
                    selection,
                    job,
                    embedded.encoder,
                    replace(embedded.data, shift=shift),
                    started,
                    episodes=settings.episodes,
                )
            )
    return rows


def _settings(job: Job) -> FewShot:
    assert job.protocol.few_shot is not None, f"{job.protocol.name} has no few shots"
    return job.protocol.few_shot


def _shots(job: Job, splits: Mapping[str, LabelledImages]) -> list[int]:
    train = splits["train"]
    index = labelled_parts(splits, job.label_fraction, job.draw)["train"]
    fewest = int(np.bincount(train.labels[index], minlength=len(train.classes)).min())
    found = [shots for shots in _settings(job).shots if shots <= fewest]
    if not found:
        raise TooFewImages(
            f"{train.dataset}: a class has {fewest} labelled training images, and few_shot needs "
            f"{min(_settings(job).shots)}; use more of the labels."
        )
    return found


def _score_episodes(
    features: Matrix, support: Counts, queries: Matrix, labels: Counts
) -> tuple[Matrix, NDArray[np.float64]]:
    """Gives the share of the episodes that chose each class [M, C], and each one's score [E]."""
    n_classes = support.shape[1]
    counts = np.zeros((len(queries), n_classes), dtype=np.int64)
    scores: list[NDArray[np.float64]] = []
    present = [labels == each for each in range(n_classes) if (labels == each).any()]
    for predicted in predict_episodes(features, support, queries):
        for each in range(n_classes):
            counts[:, each] += (predicted == each).sum(0)
        hits = predicted == labels
        scores.append(np.mean([hits[:, members].mean(1) for members in present], axis=0))
    return (counts / len(support)).astype(np.float32), np.concatenate(scores)

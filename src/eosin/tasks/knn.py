"""Nearest neighbours of frozen embeddings."""

from collections.abc import Mapping

from eosin.datasets._base import LabelledImages
from eosin.protocols._base import Protocol
from eosin.tasks._base import Inputs, Job, Row, run_head

TRAINS_THE_ENCODER = False
TAKES_INSTANCES = False


def offers(protocol: Protocol) -> bool:
    """Whether the protocol has a nearest-neighbour classifier."""
    return protocol.knn is not None


def is_random(protocol: Protocol) -> bool:
    """Whether another seed gives another classifier."""
    return protocol.knn is not None and protocol.knn.is_random


def row_names(job: Job, splits: Mapping[str, LabelledImages]) -> tuple[str, ...]:
    """What its rows are called."""
    return ("knn",)


def run(job: Job, inputs: Inputs) -> list[Row]:
    """Chooses the number of neighbours, and scores every kind of test images."""
    return run_head("knn", job.protocol.knn, job, inputs.embedded)

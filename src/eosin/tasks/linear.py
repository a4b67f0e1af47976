"""Linear probe: a linear classifier of frozen embeddings."""

from collections.abc import Mapping

from eosin.datasets._base import LabelledImages
from eosin.protocols._base import Protocol
from eosin.tasks._base import Inputs, Job, Row, run_head

TRAINS_THE_ENCODER = False
TAKES_INSTANCES = False


def offers(protocol: Protocol) -> bool:
    """Whether the protocol has a linear probe."""
    return protocol.linear is not None


def is_random(protocol: Protocol) -> bool:
    """Whether another seed gives another classifier."""
    return protocol.linear is not None and protocol.linear.is_random


def row_names(job: Job, splits: Mapping[str, LabelledImages]) -> tuple[str, ...]:
    """What its rows are called."""
    return ("linear",)


def run(job: Job, inputs: Inputs) -> list[Row]:
    """Fits by the protocol, and scores every kind of test images."""
    return run_head("linear", job.protocol.linear, job, inputs.embedded)

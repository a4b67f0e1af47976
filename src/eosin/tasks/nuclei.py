"""Nuclei instance segmentation: HoVer-Net, first its decoders alone, then with the encoder.

Graham et al. 2019, arXiv 1812.06499.
"""

from collections.abc import Mapping

from eosin.datasets._base import LabelledImages
from eosin.protocols._base import Protocol
from eosin.tasks._base import Inputs, Job, Row
from eosin.tasks._nuclei import run_nuclei

TRAINS_THE_ENCODER = True
TAKES_INSTANCES = True


def offers(protocol: Protocol) -> bool:
    """Whether the protocol says how to train."""
    return protocol.nuclei is not None


def is_random(protocol: Protocol) -> bool:
    """Whether another seed gives other decoders, order and augmentation."""
    return True


def row_names(job: Job, splits: Mapping[str, LabelledImages]) -> tuple[str, ...]:
    """What its rows are called."""
    return ("nuclei",)


def run(job: Job, inputs: Inputs) -> list[Row]:
    """Trains by the protocol, and scores every kind of test images.

    Raises:
        Diverged: the loss or the weights ceased to be numbers.
        InputError: an image cannot be read.
        Interrupted: the process was asked to stop.
    """
    training = job.protocol.nuclei
    assert training is not None, f"{job.protocol.name} has no nuclei"
    return run_nuclei("nuclei", job, inputs, training)

"""Nuclei instance segmentation with a frozen encoder: what its features alone are good for.

The decoders are as those of `nuclei` and are trained for as long; the encoder keeps its weights and
its running statistics, bit by bit.
"""

from collections.abc import Mapping
from dataclasses import replace

from eosin.datasets._base import LabelledImages
from eosin.protocols._base import Protocol
from eosin.tasks._base import Inputs, Job, Row
from eosin.tasks._nuclei import run_nuclei

TRAINS_THE_ENCODER = True
TAKES_INSTANCES = True
_NAME = "nuclei_frozen"


def offers(protocol: Protocol) -> bool:
    """Whether the protocol says how to train."""
    return protocol.nuclei is not None


def is_random(protocol: Protocol) -> bool:
    """Whether another seed gives other decoders, order and augmentation."""
    return True


def row_names(job: Job, splits: Mapping[str, LabelledImages]) -> tuple[str, ...]:
    """What its rows are called."""
    return (_NAME,)


def run(job: Job, inputs: Inputs) -> list[Row]:
    """Trains the decoders by the protocol, and scores every kind of test images.

    Raises:
        Diverged: the loss or the weights ceased to be numbers.
        InputError: an image cannot be read.
        Interrupted: the process was asked to stop.
    """
    training = job.protocol.nuclei
    assert training is not None, f"{job.protocol.name} has no nuclei"
    phases = tuple(replace(phase, is_frozen=True) for phase in training.phases)
    return run_nuclei(_NAME, job, inputs, replace(training, phases=phases))

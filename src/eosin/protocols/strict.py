"""Named, versioned settings of the tasks, so that a number says how it was obtained.

A protocol is never changed: other settings are a new version.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from eosin.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """What a task does with embeddings.

    Hyper-parameters are chosen by balanced accuracy on the dataset's own validation split where it
    has one, and otherwise by cross-validation within the training data that keeps groups together;
    of equal ones the first is taken. The test split is scored once, with the choice.
    """

    name: str
    version: int
    folds: int
    """Parts of the training data for cross-validation, where there is no validation split."""
    linear_cs: tuple[float, ...]
    """Inverse strengths of the squared L2 penalty, against the summed cross-entropy."""
    linear_max_iterations: int
    """Updates of L-BFGS."""
    knn_ks: tuple[int, ...]
    """Numbers of neighbours."""
    knn_is_centred: bool
    """Whether the mean training embedding is subtracted first; what all embeddings share, such as
    the positive mean that a ReLU leaves, brings all cosines near 1 and hides the rest."""
    knn_temperature: float
    """Neighbours vote with the weight exp(cosine / temperature)."""


_PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="strict",
            version=1,
            folds=5,
            linear_cs=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
            linear_max_iterations=1000,
            knn_ks=(1, 3, 5, 10, 20, 50),
            knn_is_centred=True,
            knn_temperature=0.07,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Gives the newest version of a protocol.

    Raises:
        UsageError: there is none of this name; the message lists those that exist.
    """
    if name not in _PROTOCOLS:
        raise UsageError(f"There is no protocol {name!r}; choose one of: {', '.join(_PROTOCOLS)}.")
    return _PROTOCOLS[name]

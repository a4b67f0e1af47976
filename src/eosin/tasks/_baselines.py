"""The encoders that always join those that are asked for, to be beaten."""

import sys
from collections.abc import Iterator, Sequence

from eosin.encoders import Encoder, build_encoder
from eosin.encoders.colour_histogram import NAME as COLOUR_HISTOGRAM
from eosin.errors import InputError
from eosin.weights import load_encoder
from eosin.weights.hub import IMAGENET

_RANDOM = "random/"


def with_baselines(names: Sequence[str], seed: int) -> Iterator[Encoder]:
    """Yields the encoders, then their baselines, none twice.

    They are, for each architecture, one with random weights and those trained on ImageNet that are
    on this machine, and a colour histogram. A baseline that is not there is named on standard
    error.

    Args:
        names: folders of exported encoders, or names.
        seed: of the random weights.

    Raises:
        InputError: an encoder cannot be loaded.
    """
    encoders = [load_encoder(name) for name in names]
    trained = [each for each in encoders if not each.name.startswith(_RANDOM)]
    named = [*encoders]
    named += [each.reinitialised(seed) for each in trained]
    named += _trained_on_imagenet([each.architecture for each in trained])
    named.append(build_encoder(COLOUR_HISTOGRAM))
    seen: set[tuple[str, str, str]] = set()
    for encoder in named:
        identity = (encoder.weights_sha256(), encoder.transform_id(), encoder.pooling)
        if identity not in seen:
            seen.add(identity)
            yield encoder


def _trained_on_imagenet(architectures: Sequence[str]) -> Iterator[Encoder]:
    for name, baseline in IMAGENET.items():
        if baseline.timm_name.partition(".")[0] not in architectures:
            continue
        try:
            yield load_encoder(name)
        except InputError:
            print(
                f"The baseline {name} is not on this machine, so it is left out; eosin weights get "
                f"{name} fetches it.",
                file=sys.stderr,
            )

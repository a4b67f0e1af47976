"""A trained network in a folder: the encoder as bare timm loads it, and the decoders beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from eosin.atomic import replacing, write_json
from eosin.errors import InputError
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.postprocess import PostProcessing
from eosin.nuclei.settings import Training
from eosin.provenance import plain
from eosin.weights import export_encoder
from eosin.weights.folders import load_folder
from eosin.weights.strict import load_strictly

VERSION = 1
CONFIG, DECODERS, ENCODER = "segmenter.json", "decoders.safetensors", "encoder"
_OF_ENCODER = "pyramid.encoder."
_USED = ("input_px", "geometry", "width", "overlap_px")


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """A network that was read, and what belongs to it.

    Attributes:
        network: in evaluation mode.
        training: the settings that inference needs; the others are defaults.
        classes: names of the types.
        mpp: micrometres a pixel of the images that it was trained on.
    """

    network: HoVerNet
    training: Training
    classes: tuple[str, ...]
    mpp: float


def save_segmenter(
    network: HoVerNet, training: Training, facts: Mapping[str, Any], folder: Path
) -> None:
    """Writes a network; its `segmenter.json` comes last, so that half of one does not load.

    Args:
        network: trained.
        training: by which settings.
        facts: `classes`, `mpp`, and how it came about.
        folder: where to.
    """
    (folder / CONFIG).unlink(missing_ok=True)
    encoder = network.encoder
    export_encoder(encoder, folder / ENCODER, {"name": encoder.name, "trained_for": "nuclei"})
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if not name.startswith(_OF_ENCODER)
    }
    with replacing(folder / DECODERS) as temporary:
        save_file(state, temporary)
    used = {name: getattr(training, name) for name in _USED}
    used["post_processing"] = plain(training.post_processing)
    write_json(folder / CONFIG, {"version": VERSION, **facts, "training": used})


def load_segmenter(folder: Path) -> Saved:
    """Reads a network.

    Raises:
        InputError: the folder holds none, or a file is damaged or of another version.
    """
    file = folder / CONFIG
    if not file.is_file():
        inner = sorted(path.parent for path in folder.glob(f"models/*/{CONFIG}"))
        hint = f" Did you mean {inner[0]}?" if inner else ""
        raise InputError(
            f"{folder} holds no trained segmentation network ({CONFIG} is missing); train one "
            f"with eosin evaluate ENCODER --on consep --task nuclei.{hint}"
        )
    try:
        config = json.loads(file.read_text())
        if config["version"] != VERSION:
            raise InputError(
                f"{file} is of version {config['version']} and this Eosin reads {VERSION}; train "
                "the network again."
            )
        training = _training(config["training"])
        classes, mpp = tuple(config["classes"]), float(config["mpp"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error!r}); train the network again.") from None
    encoder = load_folder(folder / ENCODER)
    network = HoVerNet(encoder, len(classes), geometry=training.geometry, width=training.width)
    try:
        tensors = load_file(folder / DECODERS)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{folder / DECODERS} is damaged ({error}); train the network again."
        ) from None
    tensors |= {f"{_OF_ENCODER}{name}": each for name, each in encoder.state_dict().items()}
    load_strictly(network, tensors, folder / DECODERS)
    return Saved(network=network.eval(), training=training, classes=classes, mpp=mpp)


def _training(given: Mapping[str, Any]) -> Training:
    used = {name: given[name] for name in _USED}
    return Training(**used, post_processing=PostProcessing(**given["post_processing"]))

"""Embeddings kept on disk under the hash of all that determines them, so none is ever stale."""

import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from eosin.atomic import replacing
from eosin.embeddings.extract import NO_SHIFT, Config, Images, extract
from eosin.encoders import Encoder
from eosin.engine import precision as formats
from eosin.provenance import sha256_of

# Raised when the same encoder and images would give other embeddings than before.
_CODE_VERSION = 1
_COMPUTING_PACKAGES = ("torch", "timm", "pillow")
_TENSOR = "embeddings"


def embed(
    encoder: Encoder,
    images: Images,
    config: Config,
    folder: Path,
    shift: str = NO_SHIFT,
    title: str = "images",
) -> NDArray[np.float32]:
    """Gives the embeddings [N, D] of all images, from the cache where they are in it.

    A file that is truncated, altered, or of other images is computed anew.

    Args:
        encoder: in evaluation mode.
        images: what to embed.
        config: how.
        folder: of the cache; one file `<hash>.safetensors` a matrix.
        shift: as in `extract`.
        title: what the progress bar says.

    Raises:
        InputError: an image cannot be read, or an embedding is not finite.
    """
    key = cache_key(encoder, images, config, shift)
    path = folder / f"{key}.safetensors"
    shape = (len(images.ids), encoder.embed_dim)
    ids_sha256 = sha256_of(list(images.ids))
    embeddings = _read(path, shape, ids_sha256)
    if embeddings is None:
        embeddings = extract(encoder, images, config, shift, title)
        _write(path, embeddings, ids_sha256, {"encoder": encoder.name, "shift": shift})
    return embeddings


def cache_key(encoder: Encoder, images: Images, config: Config, shift: str = NO_SHIFT) -> str:
    """Hashes weights, transform, pooling, precision, images, shift and the code that computes."""
    return sha256_of(
        {
            "code": _CODE_VERSION,
            "packages": {name: importlib.metadata.version(name) for name in _COMPUTING_PACKAGES},
            "architecture": encoder.architecture,
            "weights": encoder.weights_sha256(),
            "transform": encoder.transform_id(),
            "pooling": encoder.pooling,
            "precision": formats.resolve(config.precision, formats.default_device()),
            "images": images.manifest_sha256,
            "shift": shift,
        }
    )


def _read(path: Path, shape: tuple[int, int], ids_sha256: str) -> NDArray[np.float32] | None:
    """Reads a matrix if the file is whole and says that it is of these images."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            noted = file.metadata() or {}
            embeddings = file.get_tensor(_TENSOR)
    except (safetensors.SafetensorError, OSError):
        return None
    is_whole = (
        embeddings.shape == shape
        and embeddings.dtype == np.float32
        and noted.get("ids_sha256") == ids_sha256
        and noted.get("sha256") == _sha256(embeddings)
    )
    return embeddings if is_whole else None


def _write(
    path: Path, embeddings: NDArray[np.float32], ids_sha256: str, notes: dict[str, str]
) -> None:
    metadata = {**notes, "ids_sha256": ids_sha256, "sha256": _sha256(embeddings)}
    with replacing(path) as temporary:
        safetensors.numpy.save_file({_TENSOR: embeddings}, temporary, metadata=metadata)


def _sha256(embeddings: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(embeddings).data).hexdigest()

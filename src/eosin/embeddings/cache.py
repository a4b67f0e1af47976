"""Embeddings kept on disk under the hash of all that determines them, so none is ever stale."""

import importlib.metadata
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.embeddings import matrix_file, parts
from eosin.embeddings.extract import NO_SHIFT, Batch, Config, Extractor, Images
from eosin.embeddings.parts import Parts, Shape
from eosin.encoders import Encoder
from eosin.engine import precision as formats
from eosin.errors import InputError, Interrupted
from eosin.progress import Bar
from eosin.provenance import sha256_of

# Raised when the same encoder and images would give other embeddings than before.
_CODE_VERSION = 2
_COMPUTING_PACKAGES = ("torch", "timm", "pillow")


def embed(
    encoder: Encoder,
    images: Images,
    config: Config,
    folder: Path,
    shift: str = NO_SHIFT,
    title: str = "images",
) -> NDArray[np.float32]:
    """Gives the embeddings [N, D] of all images, from the cache where they are in it.

    A file that is truncated, altered, or of other images is computed anew. A run that is killed
    goes on with the batches that it had finished, up to some seconds before, and gives the same
    bits as one that is not.

    Args:
        encoder: in evaluation mode.
        images: what to embed.
        config: how.
        folder: of the cache; one file `<hash>.safetensors` a matrix.
        shift: as in `extract`.
        title: what the progress bar says.

    Raises:
        InputError: an image cannot be read, an embedding is not finite, or another process is
            computing the same embeddings in this folder.
    """
    key = cache_key(encoder, images, config, shift)
    path = folder / f"{key}.safetensors"
    shape = Shape(
        key=key,
        images=len(images.ids),
        embed_dim=encoder.embed_dim,
        batch_size=config.batch_size,
    )
    ids_sha256 = sha256_of(list(images.ids))
    embeddings = _read(path, shape, ids_sha256)
    if embeddings is not None:
        return embeddings
    unfinished = folder / f"{key}-{ids_sha256[:16]}-{config.batch_size}.parts"
    with parts.locked(unfinished):
        embeddings = _read(path, shape, ids_sha256)
        if embeddings is None:
            done = Parts(unfinished, shape)
            if len(done.left):
                count = len(images.ids)
                extractor = Extractor(encoder, images, config, shift, expected=count)
                _compute(done, extractor, title)
            embeddings = done.matrix()
            notes = {"ids_sha256": ids_sha256, "encoder": encoder.name, "shift": shift}
            with matrix_file.writing(path, embeddings.shape, "float32", notes) as matrix:
                matrix.put(0, embeddings)
        parts.remove(unfinished)
    return embeddings


def cache_key(encoder: Encoder, images: Images, config: Config, shift: str = NO_SHIFT) -> str:
    """Hashes weights, transform, pooling, precision, back end, images, shift and the code."""
    return sha256_of(
        {
            **what_computes(encoder, config),
            "packages": _versions(config.backend_name),
            "images": images.manifest_sha256,
            "shift": shift,
        }
    )


def what_computes(encoder: Encoder, config: Config) -> dict[str, Any]:
    """Names all of an encoder and of its use that embeddings depend on, besides the images."""
    return {
        "code": _CODE_VERSION,
        "architecture": encoder.architecture,
        "weights": encoder.weights_sha256(),
        "transform": encoder.transform_id(),
        "pooling": encoder.pooling,
        "precision": formats.resolve(config.precision, formats.default_device()),
        "backend": config.backend_name,
    }


def _versions(backend: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in dict.fromkeys([*_COMPUTING_PACKAGES, backend]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fill(
    done: Parts,
    batches: Iterable[int],
    make: Callable[[Iterable[range]], Generator[Batch]],
    bar: Bar,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Embeds batches and keeps them; what is finished when it ends early is written first.

    Args:
        done: where they are kept.
        batches: their numbers.
        make: gives the batches of some images, in any order, such as `Extractor.run`.
        bar: counts images.
        check: called after each batch; it raises where the work should end.
    """
    batches = list(batches)
    if not batches:
        return
    try:
        with closing(make(done.shape.images_of(batch) for batch in batches)) as made:
            for batch in made:
                done.add(batch)
                bar.advance(len(batch.images), _note(done))
                check()
    except BaseException:
        # A full disk may be why it ends.
        with suppress(OSError):
            done.flush()
        raise


def _note(done: Parts) -> str:
    return f"{len(done.unreadable):,} unreadable" if done.unreadable else ""


def _compute(done: Parts, extractor: Extractor, title: str) -> None:
    before = done.images_done
    try:
        with Bar(f"embedding {title}", done.shape.images, "images", done=before) as bar:
            fill(done, done.left.tolist(), extractor.run, bar)
    except InputError as error:
        if not isinstance(error, Interrupted):
            # Mended images have another hash, under which nobody would look for these.
            parts.remove(done.folder)
        raise


def _read(path: Path, shape: Shape, ids_sha256: str) -> NDArray[np.float32] | None:
    """Reads a matrix if the file is whole and says that it is of these images."""
    found = matrix_file.read_matrix(path)
    if found is None:
        return None
    embeddings, noted = found
    is_of_these = (
        embeddings.shape == (shape.images, shape.embed_dim)
        and embeddings.dtype == np.float32
        and noted.get("ids_sha256") == ids_sha256
    )
    return embeddings.astype(np.float32, copy=False) if is_of_these else None

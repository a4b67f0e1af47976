from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from eosin.embeddings import parts
from eosin.embeddings.cache import cache_key, embed
from eosin.embeddings.extract import Config
from eosin.encoders import Encoder, build_encoder
from eosin.errors import InputError

CONFIG = Config(precision="fp32", batch_size=8, workers=1)


class Counted:
    """Images that count how often they are read."""

    def __init__(self, count: int = 5, name: str = "image", manifest_sha256: str = "0") -> None:
        self.ids = tuple(f"{name} {number}" for number in range(count))
        self.manifest_sha256 = manifest_sha256
        self.reads = 0

    def read(self, index: int) -> np.ndarray:
        self.reads += 1
        return np.full((32, 32, 3), 20 * index, dtype=np.uint8)


def small(seed: int = 0, **changes: int) -> Encoder:
    return build_encoder("resnet10t", seed=seed, **{"input_px": 32, **changes}).eval()


@pytest.fixture
def encoder() -> Encoder:
    return small()


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_embeddings_are_computed_once(encoder: Encoder, tmp_path: Path) -> None:
    images = Counted()
    first = embed(encoder, images, CONFIG, tmp_path)
    second = embed(encoder, images, CONFIG, tmp_path)
    assert images.reads == 5
    assert (first == second).all() and second.dtype == np.float32
    assert only_file(tmp_path).name == f"{cache_key(encoder, images, CONFIG)}.safetensors"


def test_batch_size_and_threads_share_an_entry(encoder: Encoder, tmp_path: Path) -> None:
    images = Counted()
    embed(encoder, images, CONFIG, tmp_path)
    embed(encoder, images, Config(precision="fp32", batch_size=2, workers=3), tmp_path)
    assert images.reads == 5


@pytest.mark.parametrize(
    "changed",
    [
        lambda: cache_key(small(seed=1), Counted(), CONFIG),
        lambda: cache_key(small(input_px=48), Counted(), CONFIG),
        lambda: cache_key(small(), Counted(manifest_sha256="1"), CONFIG),
        lambda: cache_key(small(), Counted(), Config(precision="bf16")),
        lambda: cache_key(small(), Counted(), Config(precision="fp32", backend="openvino")),
        lambda: cache_key(small(), Counted(), CONFIG, shift="stain-shift-v1"),
        lambda: cache_key(build_encoder("colour_histogram"), Counted(), CONFIG),
    ],
    ids=["weights", "transform", "images", "precision", "backend", "shift", "architecture"],
)
def test_whatever_changes_embeddings_changes_the_key(changed: Callable[[], str]) -> None:
    assert changed() != cache_key(small(), Counted(), CONFIG)


def test_one_changed_weight_changes_the_key(encoder: Encoder) -> None:
    before = cache_key(encoder, Counted(), CONFIG)
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-6
    assert cache_key(encoder, Counted(), CONFIG) != before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def drop_rows(path: Path) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, embeddings = file.metadata(), file.get_tensor("embeddings")
    safetensors.numpy.save_file({"embeddings": embeddings[:3].copy()}, path, metadata=metadata)


def forget_metadata(path: Path) -> None:
    embeddings = safetensors.numpy.load_file(path)["embeddings"]
    safetensors.numpy.save_file({"embeddings": embeddings}, path)


def rename_the_tensor(path: Path) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, embeddings = file.metadata(), file.get_tensor("embeddings")
    safetensors.numpy.save_file({"features": embeddings}, path, metadata=metadata)


@pytest.mark.parametrize(
    "damage", [truncate, empty, flip_a_bit, drop_rows, forget_metadata, rename_the_tensor]
)
def test_damaged_files_are_computed_anew(
    encoder: Encoder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    images = Counted()
    expected = embed(encoder, images, CONFIG, tmp_path)
    damage(only_file(tmp_path))
    assert (embed(encoder, images, CONFIG, tmp_path) == expected).all()
    assert images.reads == 10
    embed(encoder, images, CONFIG, tmp_path)
    assert images.reads == 10


def test_a_file_of_other_images_under_the_same_name_is_not_used(
    encoder: Encoder, tmp_path: Path
) -> None:
    embed(encoder, Counted(), CONFIG, tmp_path)
    others = Counted(name="other")
    embed(encoder, others, CONFIG, tmp_path)
    assert others.reads == 5


class Stopping(Counted):
    """Images of which one ends the work."""

    def __init__(self, count: int, at: int, error: BaseException) -> None:
        super().__init__(count)
        self._at, self._error = at, error

    def read(self, index: int) -> np.ndarray:
        if index == self._at:
            raise self._error
        return super().read(index)


def test_a_run_that_was_stopped_goes_on(encoder: Encoder, tmp_path: Path) -> None:
    config = Config(precision="fp32", batch_size=2, workers=1)
    expected = embed(encoder, Counted(9), config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, Stopping(9, 7, KeyboardInterrupt()), config, tmp_path / "stopped")
    (unfinished,) = (tmp_path / "stopped").glob("*.parts")
    assert not list((tmp_path / "stopped").glob("*.safetensors"))
    images = Counted(9)
    found = embed(encoder, images, config, tmp_path / "stopped")
    assert (found == expected).all() and 0 < images.reads < 9
    assert not unfinished.exists() and only_file(tmp_path / "stopped").suffix == ".safetensors"


def test_bad_input_leaves_nothing(encoder: Encoder, tmp_path: Path) -> None:
    config = Config(precision="fp32", batch_size=2, workers=1)
    with pytest.raises(InputError, match="torn"):
        embed(encoder, Stopping(9, 7, InputError("torn")), config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_meet(encoder: Encoder, tmp_path: Path) -> None:
    class Meeting(Counted):
        def read(self, index: int) -> np.ndarray:
            (unfinished,) = tmp_path.glob("*.parts")
            with (
                pytest.raises(InputError, match="being written by another run"),
                parts.locked(unfinished),
            ):
                pass
            return super().read(index)

    embed(encoder, Meeting(), CONFIG, tmp_path)
    only_file(tmp_path)

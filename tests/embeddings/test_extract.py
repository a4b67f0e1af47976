from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from eosin.embeddings.extract import (
    SHIFTS,
    Config,
    Extractor,
    batches_of,
    extract,
    fit_to_square,
)
from eosin.encoders import Encoder, build_encoder
from eosin.errors import Diverged, InputError, UsageError
from eosin.images.stain_shift import NAME, shift_stain


class Numbered:
    """Images of several shapes made from their number, and changed if asked for."""

    manifest_sha256 = "0"

    def __init__(
        self, count: int, change: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.ids = tuple(f"image {number}" for number in range(count))
        self._change = change

    def read(self, index: int) -> np.ndarray:
        shape = [(40, 48), (32, 32), (64, 50)][index % 3]
        image = np.random.default_rng(index).integers(0, 256, (*shape, 3), dtype=np.uint8)
        return image if self._change is None else self._change(image)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder("resnet10t", input_px=32, seed=0).eval()


EXACT = Config(precision="fp32", batch_size=4, workers=2)


@pytest.mark.parametrize("shape", [(40, 48), (31, 97), (96, 96), (20, 16), (48, 47)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_fitted_as_torchvision_does(shape: tuple[int, int], interpolation: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    reference = Compose([Resize(32, InterpolationMode(interpolation)), CenterCrop(32)])
    expected = np.asarray(reference(Image.fromarray(image)))
    assert (fit_to_square(image, 32, interpolation) == expected).all()


def test_an_unknown_interpolation_is_an_error() -> None:
    with pytest.raises(InputError, match="'area'"):
        fit_to_square(np.zeros((8, 8, 3), np.uint8), 4, "area")


def test_embeddings_are_those_of_each_image_alone(encoder: Encoder) -> None:
    images = Numbered(11)
    found = extract(encoder, images, EXACT)
    assert found.shape == (11, 512) and found.dtype == np.float32
    for index in range(11):
        square = fit_to_square(images.read(index), 32, encoder.interpolation)
        pixels = torch.from_numpy(square.copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = encoder.embed(encoder.normalise(pixels))
        assert found[index] == pytest.approx(expected[0].numpy(), abs=1e-5)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 3), (64, 0), (5, 8)])
def test_batches_and_threads_have_no_effect(
    encoder: Encoder, batch_size: int, workers: int
) -> None:
    config = Config(precision="fp32", batch_size=batch_size, workers=workers)
    expected = extract(encoder, Numbered(11), EXACT)
    assert extract(encoder, Numbered(11), config) == pytest.approx(expected, abs=1e-5)


def test_the_shift_is_applied_to_the_stored_image(encoder: Encoder) -> None:
    assert {NAME: shift_stain} == SHIFTS
    shifted = extract(encoder, Numbered(6), EXACT, shift=NAME)
    beforehand = extract(encoder, Numbered(6, change=shift_stain), EXACT)
    assert (shifted == beforehand).all()
    assert (shifted != extract(encoder, Numbered(6), EXACT)).any()


def test_bf16_is_close_to_fp32(encoder: Encoder) -> None:
    exact = extract(encoder, Numbered(8), EXACT)
    rounded = extract(encoder, Numbered(8), Config(precision="bf16", batch_size=4))
    assert rounded.dtype == np.float32
    assert (rounded != exact).any()
    lengths = np.linalg.norm(rounded, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((rounded * exact).sum(1) / lengths).min() > 0.99


def test_an_image_that_cannot_be_read_ends_the_work(encoder: Encoder) -> None:
    def refuse(image: np.ndarray) -> np.ndarray:
        raise InputError("slide7/tile3.jpg cannot be read as an image")

    with pytest.raises(InputError, match="slide7/tile3"):
        extract(encoder, Numbered(500, change=refuse), EXACT)


def test_a_diverged_encoder_is_named() -> None:
    encoder = build_encoder("resnet10t", input_px=32, seed=0).eval()
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="resnet10t gives 4 embeddings that are not finite"):
        extract(encoder, Numbered(4), EXACT)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="--batch-size 0"):
        Config(batch_size=0)
    with pytest.raises(UsageError, match="--workers -1"):
        Config(workers=-1)


def test_unreadable_images_are_named_and_keep_the_places_of_others(encoder: Encoder) -> None:
    class Torn(Numbered):
        def read(self, index: int) -> np.ndarray:
            if index in (2, 9):
                raise InputError(f"tile {index} is torn")
            return super().read(index)

    whole = extract(encoder, Numbered(11), EXACT)
    extractor = Extractor(encoder, Torn(11), EXACT, skips_unreadable=True, expected=11)
    made = list(extractor.run(batches_of(11, 4)))
    assert [batch.images for batch in made] == [range(0, 4), range(4, 8), range(8, 11)]
    reasons = {index: reason for batch in made for index, reason in batch.unreadable.items()}
    assert reasons == {2: "tile 2 is torn", 9: "tile 9 is torn"}
    found = np.concatenate([batch.embeddings for batch in made])
    others = [index for index in range(11) if index not in reasons]
    assert (found[others] == whole[others]).all()
    with pytest.raises(InputError, match="torn"):
        extract(encoder, Torn(11), EXACT)


def test_batches_may_be_asked_for_in_any_order(encoder: Encoder) -> None:
    whole = extract(encoder, Numbered(11), EXACT)
    extractor = Extractor(encoder, Numbered(11), EXACT, expected=11)
    for images in (range(8, 11), range(0, 4), range(4, 8)):
        (batch,) = extractor.run([images])
        assert (batch.embeddings == whole[images.start : images.stop]).all()


def test_nothing_gives_an_empty_matrix(encoder: Encoder) -> None:
    assert extract(encoder, Numbered(0), EXACT).shape == (0, 512)


def test_an_unknown_back_end_is_refused() -> None:
    with pytest.raises(UsageError, match="--backend tensorrt"):
        Config(backend="tensorrt")

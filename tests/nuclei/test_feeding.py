"""Windows, and batches that depend on the seed and the update alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.encoders import build_encoder
from eosin.errors import InputError
from eosin.nuclei.feeding import Feed, windows_of
from eosin.nuclei.settings import Training
from tests.nuclei.discs import images

TRAINING = Training(input_px=64, window_px=96, step_px=48)
ENCODER = build_encoder("resnet10t", input_px=64, seed=0)


def feed(updates: int = 6, seed: int = 0, **changes) -> Feed:
    given = {"images": images("train", 4), "chosen": np.array([0, 1, 3]), **changes}
    return Feed(
        given["images"],
        given["chosen"],
        ENCODER,
        TRAINING,
        output_px=64,
        batch_size=5,
        updates=updates,
        seed=seed,
        device=torch.device("cpu"),
    )


def test_consep_has_49_windows_an_image() -> None:
    found = windows_of([(1000, 1000)] * 27, 540, 164)
    assert len(found) == 1323
    centres = sorted({window.centre[0] for window in found})
    # The first window begins 188 pixels before the image, the last ends 188 pixels behind it.
    assert centres[0] == 269.5 - 188 and centres[-1] == 1000 + 188 - 270.5
    assert np.diff(centres).max() == 164


@settings(deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    step=st.integers(20, 60),
    extra=st.integers(0, 60),
)
def test_the_middles_of_the_windows_cover_the_image(
    height: int, width: int, step: int, extra: int
) -> None:
    found = windows_of([(height, width)], step + extra, step)
    covered = np.zeros((height, width), bool)
    for window in found:
        left, top = (int(np.ceil(at - step / 2)) for at in window.centre)
        covered[max(0, top) : max(0, top + step), max(0, left) : max(0, left + step)] = True
    assert covered.all()


def test_batches_are_the_same_from_any_update_on() -> None:
    whole = [batch.micro[0] for batch in feed()(0)]
    later = [batch.micro[0] for batch in feed()(3)]
    assert len(whole) == 6 and len(later) == 3
    for first, second in zip(whole[3:], later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = next(iter(feed(seed=1)(0))).micro[0]
    assert not torch.equal(other[0], whole[0][0])


def test_an_epoch_has_every_window_of_the_chosen_images_once() -> None:
    # Three images of 96 pixels, each with windows about three places a side.
    count = len(windows_of([(96, 96)] * 3, 96, 48))
    updates = count // 5
    names = [name for batch in feed(updates)(0) for name in batch.tiles()]
    assert len(set(names)) == len(names) == updates * 5
    assert {name.split(" at ")[0] for name in names} == {"train/0", "train/1", "train/3"}


def test_targets_belong_to_their_crops() -> None:
    pixels, foreground, hv, types = next(iter(feed()(0))).micro[0]
    assert pixels.shape == (5, 3, 64, 64) and hv.shape == (5, 2, 64, 64)
    assert foreground.dtype == types.dtype == torch.int64
    assert torch.equal(foreground > 0, types > 0)
    assert 0.05 < float(foreground.float().mean()) < 0.6
    # Nuclei are darker than the ground.
    grey = pixels.mean(1)
    assert grey[foreground > 0].mean() < grey[foreground == 0].mean() - 0.5
    assert hv.abs().max() <= 1 and set(types.unique().tolist()) == {0, 1, 2}
    assert not hv.movedim(1, -1)[foreground == 0].any()


def test_an_image_that_cannot_be_read_is_named() -> None:
    def refuse(index: int):
        if index == 1:
            raise InputError("train/1.png cannot be read")
        return images("train", 4).read(index)

    broken = replace(images("train", 4), reader=refuse)
    with pytest.raises(InputError, match=r"train/1\.png"):
        list(feed(images=broken)(0))

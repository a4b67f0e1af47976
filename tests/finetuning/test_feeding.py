from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.encoders import build_encoder
from eosin.errors import InputError
from eosin.finetuning.feeding import Feed, TrainingSet, augment, augmentation
from eosin.finetuning.image_cache import ImageCache
from eosin.finetuning.training import batch_size_of, updates_of
from eosin.protocols._division import Part
from tests.finetuning.textures import PX, SETTINGS, images, make_splits

CPU = torch.device("cpu")
ENCODER = build_encoder("resnet10t", input_px=PX, seed=0)


def feed(splits=None, batch_size: int = 6, updates: int = 5, seed: int = 0) -> Feed:
    splits = splits or make_splits(train=10, valid=4)
    parts = [
        Part(split="train", index=np.arange(1, 10)),
        Part(split="valid", index=np.array([3])),
    ]
    return Feed(
        TrainingSet(splits, parts),
        ImageCache(splits, PX),
        ENCODER,
        SETTINGS,
        batch_size=batch_size,
        updates=updates,
        seed=seed,
        device=CPU,
    )


def test_every_epoch_has_every_image_once_under_its_label() -> None:
    batches = list(feed()(0))
    names = [name for batch in batches for name in batch.tiles()]
    assert len(names) == 30
    for epoch in (names[:10], names[10:20], names[20:]):
        assert sorted(epoch) == sorted([*(f"train/{n}" for n in range(1, 10)), "valid/3"])
    assert names[:10] != names[10:20]
    labels = torch.cat([batch.micro[0][1] for batch in batches]).tolist()
    assert labels == [int(name.rpartition("/")[2]) % 2 for name in names]


def test_a_later_start_gives_the_same_batches() -> None:
    whole, rest = list(feed()(0)), list(feed()(3))
    assert len(rest) == 2
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.micro[0][0], other.micro[0][0])
        assert one.tiles() == other.tiles()
    elsewise = next(feed(seed=1)(3))
    assert not torch.equal(whole[3].micro[0][0], elsewise.micro[0][0])


def test_processes_share_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = feed().share(2)[1].tolist()
    shares = []
    for rank in range(4):
        monkeypatch.setattr("eosin.engine.distributed.rank", lambda rank=rank: rank)
        monkeypatch.setattr("eosin.engine.distributed.world_size", lambda: 4)
        shares.append(feed().share(2)[1].tolist())
    assert [number for share in shares for number in share] == whole
    assert [len(share) for share in shares] == [2, 2, 1, 1]


def test_batches_are_normalised_as_the_encoder_asks() -> None:
    batch = next(feed()(0)).micro[0][0]
    assert batch.shape == (6, 3, PX, PX) and batch.dtype == torch.float32
    # Colours are between those of the two stripes, noise and jitter included.
    red = batch[:, 0] * ENCODER.std[0] + ENCODER.mean[0]
    assert red.mean(dim=(1, 2)).min() > 0.2 and red.mean(dim=(1, 2)).max() < 0.9


def test_an_unreadable_image_ends_the_training() -> None:
    def reader(index: int) -> np.ndarray:
        raise InputError("train/4.png cannot be read")

    splits = {
        **make_splits(train=10, valid=4),
        "train": replace(images("train", 10), reader=reader),
    }
    with pytest.raises(InputError, match=r"4\.png"):
        next(feed(splits)(0))


def test_all_eight_orientations_and_no_more() -> None:
    plain = replace(SETTINGS, crop_scale=(1.0, 1.0), jitter=(0, 0, 0, 0))
    image = np.random.default_rng(0).integers(0, 255, (PX, PX, 3), dtype=np.uint8)
    spec = replace(augmentation(plain, ENCODER), ratio=(1.0, 1.0))
    planes = image.transpose(2, 0, 1)
    turned = [np.rot90(planes, turns, axes=(1, 2)) for turns in range(4)]
    orientations = {each.tobytes() for each in [*turned, *(t[:, ::-1] for t in turned)]}
    assert len(orientations) == 8
    rng, found = np.random.default_rng(1), Counter()
    for _ in range(400):
        view = np.empty((3, PX, PX), np.uint8)
        augment(image, spec, rng, turns=True, into=view)
        found[view.tobytes()] += 1
    assert found.keys() == orientations and min(found.values()) > 25
    without = augmentation(replace(plain, flips=False), ENCODER)
    view = np.empty((3, PX, PX), np.uint8)
    augment(image, replace(without, ratio=(1.0, 1.0)), rng, turns=False, into=view)
    assert np.array_equal(view, planes)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 200), batch=st.integers(1, 64), epochs=st.integers(1, 9))
def test_the_length_is_so_many_epochs_between_the_fewest_and_the_most_updates(
    count: int, batch: int, epochs: int
) -> None:
    chosen = replace(SETTINGS, batch_size=batch, epochs=epochs)
    size, updates = batch_size_of(chosen, count), updates_of(chosen, count)
    assert 1 <= size <= min(batch, count)
    assert updates >= SETTINGS.min_updates
    assert updates * size >= epochs * count
    most = max(updates - 1, chosen.min_updates)
    assert updates_of(replace(chosen, max_updates=most), count) == min(updates, most)
    if updates > SETTINGS.min_updates:
        assert (updates - 1) * size < epochs * count

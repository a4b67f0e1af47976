"""A frozen encoder stays bit for bit as it is, whatever happens around it."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from eosin.encoders import Encoder

Build = Callable[[str], Encoder]


class Around(nn.Module):
    """A network with an encoder inside, as HoVer-Net is."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.embed_dim, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


def wake_parent(around: Around) -> None:
    around.train()


def wake_encoder(around: Around) -> None:
    around.train()
    around.encoder.train()


def wake_model(around: Around) -> None:
    around.train()
    around.encoder.model.train()


def wake_each_layer(around: Around) -> None:
    around.train()
    for module in around.modules():
        module.train(True)


def wake_by_apply(around: Around) -> None:
    around.apply(lambda module: module.train())


WAYS = [wake_parent, wake_encoder, wake_model, wake_each_layer, wake_by_apply]


def train_a_little(around: Around, images: Tensor) -> None:
    optimizer = torch.optim.AdamW(around.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        around(images).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("wake", WAYS)
@pytest.mark.parametrize("make", ["resnet", "efficientnet", "vit"])
def test_it_is_the_same_after_training_around_it(
    make: str, wake: Callable[[Around], None], build: Build, images: Tensor
) -> None:
    around = Around(build(make).freeze())
    before, embedded = around.encoder.weights_sha256(), around.encoder.embed(images)
    head = around.head.weight.clone()
    wake(around)
    train_a_little(around, images)
    assert around.encoder.weights_sha256() == before
    assert torch.equal(around.encoder.embed(images), embedded)
    assert not any(module.training for module in around.encoder.modules())
    assert around.training and not torch.equal(around.head.weight, head)


def test_one_that_is_not_frozen_moves(build: Build, images: Tensor) -> None:
    around = Around(build("resnet"))
    before = around.encoder.weights_sha256()
    wake_parent(around)
    train_a_little(around, images)
    assert around.encoder.weights_sha256() != before


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.deepcopy,
        lambda encoder: encoder.copied(),
        lambda encoder: pickle.loads(pickle.dumps(encoder)),
        lambda encoder: encoder.at_size(96),
        lambda encoder: encoder.with_stem_stride(1),
        lambda encoder: copy.deepcopy(Around(encoder)).encoder,
    ],
    ids=["deepcopy", "copied", "pickle", "at_size", "with_stem_stride", "inside"],
)
def test_copies_stay_frozen(
    duplicate: Callable[[Encoder], Encoder], build: Build, images: Tensor
) -> None:
    encoder = build("resnet").freeze()
    around = Around(duplicate(encoder))
    assert around.encoder is not encoder and around.encoder.model is not encoder.model
    before = around.encoder.weights_sha256()
    wake_model(around)
    train_a_little(around, images)
    assert around.encoder.weights_sha256() == before
    assert not any(module.training for module in around.encoder.modules())
    assert not any(each.requires_grad for each in around.encoder.parameters())


def test_a_copy_made_before_goes_on_training(build: Build, images: Tensor) -> None:
    encoder = build("resnet")
    free = encoder.copied()
    encoder.freeze()
    around = Around(free)
    before = free.weights_sha256()
    wake_parent(around)
    train_a_little(around, images)
    assert free.weights_sha256() != before

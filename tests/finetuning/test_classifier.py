import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath

from eosin.encoders import Encoder, build_encoder
from eosin.errors import UsageError
from eosin.finetuning.classifier import Classifier, trainable_copy
from eosin.finetuning.feeding import Feed, TrainingSet
from eosin.finetuning.image_cache import ImageCache
from eosin.finetuning.layers import parameter_groups
from eosin.finetuning.training import Setup, train_classifier
from eosin.protocols._base import FineTuning
from eosin.protocols._division import Part
from tests.finetuning.textures import PX, SETTINGS, make_splits

CPU = torch.device("cpu")
SPLITS = make_splits(train=32)
PARTS = [Part(split="train", index=torch.arange(32).numpy())]
UPDATES, RATE = 5, 0.02


def make_setup(encoder: Encoder, settings: FineTuning) -> Setup:
    return Setup(
        encoder=encoder,
        splits=SPLITS,
        n_classes=2,
        settings=settings,
        precision="fp32",
        seed=3,
        device=CPU,
        cache=ImageCache(SPLITS, encoder.input_px),
    )


def by_hand(encoder: Encoder, settings: FineTuning) -> tuple[Encoder, torch.nn.Linear]:
    """Plain PyTorch: the batches of the feed, one rate for all, the formula of the schedule."""
    encoder = copy.deepcopy(encoder).train().to(memory_format=torch.channels_last)
    head = torch.nn.Linear(encoder.embed_dim, 2)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    weights = [*encoder.named_parameters(), *head.named_parameters()]
    groups = [
        {"params": [p for _, p in weights if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for _, p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, foreach=False)
    else:
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, foreach=False)
    images = TrainingSet(SPLITS, PARTS)
    cache = ImageCache(SPLITS, encoder.input_px)
    feed = Feed(
        images, cache, encoder, settings, batch_size=16, updates=UPDATES, seed=3, device=CPU
    )
    for update, batch in enumerate(feed(0)):
        share = update + 1 if update < 1 else (1 + math.cos(math.pi * (update - 1) / 4)) / 2
        for group in optimizer.param_groups:
            group["lr"] = RATE * 16 / 256 * share
        ((pixels, labels),) = batch.micro
        optimizer.zero_grad()
        F.cross_entropy(head(encoder.embed(pixels)), labels).backward()
        optimizer.step()
    return encoder, head


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_flat_rate_is_plain_training(optimizer: str, tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, layer_decay=1.0, min_updates=UPDATES, epochs=1, optimizer=optimizer
    )
    # Residual branches that start at zero have gradients of rounding alone, which AdamW enlarges.
    encoder = build_encoder("resnet10t", input_px=PX).reinitialised(0)
    before = encoder.weights_sha256()
    expected, head = by_hand(encoder, settings)
    found = train_classifier(make_setup(encoder, settings), PARTS, RATE, tmp_path)
    torch.testing.assert_close(found.head.weight, head.weight, atol=1e-5, rtol=1e-3)
    theirs = expected.state_dict()
    for name, value in found.encoder.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=2e-4, rtol=1e-3, msg=name)
    moved = (found.encoder.model.conv1[0].weight - encoder.model.conv1[0].weight).abs().max()
    assert moved > 1e-4
    assert encoder.weights_sha256() == before and not encoder.training


def test_lower_layers_move_less(tmp_path: Path) -> None:
    encoder = build_encoder("timm/test_vit", input_px=PX, seed=0).eval()
    settings = replace(SETTINGS, layer_decay=0.1, min_updates=4)
    found = train_classifier(make_setup(encoder, settings), PARTS, RATE, tmp_path).encoder.model
    moved = [
        (found.get_parameter(name) - encoder.model.get_parameter(name)).abs().max().item()
        for name in (
            "patch_embed.proj.weight",
            "blocks.0.mlp.fc1.weight",
            "blocks.5.mlp.fc1.weight",
        )
    ]
    # AdamW's first steps are as long as the learning rate.
    assert moved[0] < moved[1] / 5 < moved[2] / 1e4
    assert moved[2] > 1e-5


def test_the_first_loss_is_that_of_chance() -> None:
    encoder = build_encoder("resnet10t", input_px=PX, seed=0)
    classifier = Classifier(encoder, 5, SETTINGS, learning_rate=1.0, updates=9, batch_size=4)
    loss = classifier([torch.randn(4, 3, PX, PX), torch.tensor([0, 1, 4, 2])], 0)
    assert loss.total.item() == pytest.approx(math.log(5))
    assert loss.parts["accuracy"].item() == 0.25


def test_a_frozen_encoder_stays_so_and_its_copy_learns() -> None:
    encoder = build_encoder("resnet10t", input_px=PX, seed=0).freeze()
    copied = trainable_copy(encoder, 0.0).train()
    assert all(module.training for module in copied.modules())
    assert all(parameter.requires_grad for parameter in copied.parameters())
    assert not any(parameter.requires_grad for parameter in encoder.train().parameters())
    assert not any(module.training for module in encoder.modules())


def test_weights_without_a_part_in_the_embedding_are_not_waited_for() -> None:
    encoder = build_encoder("timm/test_vit3", input_px=PX, seed=0)
    assert encoder.pooling == "map"
    assert all(each.requires_grad for each in trainable_copy(encoder, 0.0).parameters())
    copied = trainable_copy(encoder.with_pooling("mean"), 0.0)
    unused = {name for name, each in copied.model.named_parameters() if not each.requires_grad}
    pooling = {name for name, _ in copied.model.named_parameters() if name.startswith("attn_pool")}
    assert unused == pooling and pooling
    assert all(each.grad is None for each in copied.parameters())
    group = parameter_groups(copied, torch.nn.Linear(2, 2), 0.5, 0.1)
    assert all(each.requires_grad for one in group for each in one["params"])


@pytest.mark.parametrize("name", ["timm/test_vit", "resnet10t"])
def test_drop_path_joins_the_same_weights(name: str) -> None:
    # Whose residual branches are awake, so that it matters to drop one.
    encoder = build_encoder(name, input_px=PX).reinitialised(0)
    copied = trainable_copy(encoder, 0.2)
    rates = [each.drop_prob for each in copied.modules() if isinstance(each, DropPath)]
    assert max(rates) == pytest.approx(0.2) and rates == sorted(rates)
    images = torch.randn(4, 3, PX, PX)
    assert copied.weights_sha256() == encoder.weights_sha256()
    assert torch.equal(copied.eval().embed(images), encoder.embed(images))
    copied.train()
    assert not torch.equal(copied.embed(images), copied.embed(images))
    assert not any(isinstance(each, DropPath) for each in encoder.modules())


def test_an_architecture_without_drop_path_is_refused() -> None:
    encoder = build_encoder("timm/densenet121", input_px=PX, seed=0)
    with pytest.raises(UsageError, match="no stochastic depth"):
        trainable_copy(encoder, 0.2)


def test_a_seed_below_zero_is_refused(tmp_path: Path) -> None:
    setup = make_setup(build_encoder("resnet10t", input_px=PX, seed=0), SETTINGS)
    with pytest.raises(UsageError, match="--seed is -1"):
        train_classifier(replace(setup, seed=-1), PARTS, RATE, tmp_path)

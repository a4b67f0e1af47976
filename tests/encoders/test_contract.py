"""What every family of encoders must do; a new one is covered without an edit here."""

from pathlib import Path

import pytest
import timm
import torch

from eosin import plugins
from eosin.encoders import Encoder, build_encoder
from eosin.errors import InputError, UsageError
from eosin.weights import export_encoder, load_encoder

# One small variant of each family, where its first is large.
SMALLEST = {"timm_hub": "timm/test_vit", "vit": "vit_tiny_patch16", "resnet": "resnet10t"}
FAMILIES = plugins.names("encoders")


@pytest.fixture(params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    module = plugins.load("encoders", request.param)
    name = SMALLEST.get(request.param, module.variants()[0])
    return module.build(name, input_px=64, seed=0).eval()


def test_embeddings_have_the_length_that_is_said(encoder: Encoder) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    embeddings = encoder.embed(encoder.normalise(images))
    assert embeddings.shape == (2, encoder.embed_dim)
    assert embeddings.isfinite().all()
    assert torch.equal(embeddings, encoder(encoder.normalise(images)))


def test_names_are_unique_and_buildable(encoder: Encoder) -> None:
    every = [name for family in FAMILIES for name in plugins.load("encoders", family).variants()]
    assert len(every) == len(set(every))
    assert encoder.name in every


def test_the_same_seed_gives_the_same_weights(encoder: Encoder) -> None:
    again = build_encoder(encoder.name, input_px=64, seed=0)
    assert again.weights_sha256() == encoder.weights_sha256()
    if list(encoder.parameters()):
        other = build_encoder(encoder.name, input_px=64, seed=1)
        assert other.weights_sha256() != encoder.weights_sha256()


def test_a_seed_leaves_the_global_generator_alone(encoder: Encoder) -> None:
    before = torch.get_rng_state()
    build_encoder(encoder.name, input_px=64, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_normalisation_is_the_encoders(encoder: Encoder) -> None:
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = [(1 - mean) / std for mean, std in zip(encoder.mean, encoder.std, strict=True)]
    assert encoder.normalise(white)[0, :, 0, 0].tolist() == pytest.approx(expected)


def test_the_transform_says_what_changes_an_embedding(encoder: Encoder) -> None:
    other = build_encoder(encoder.name, input_px=32, seed=0)
    assert other.transform_id() != encoder.transform_id()


@pytest.mark.parametrize("name", sorted(SMALLEST.values()))
def test_feature_maps_are_four_and_keep_the_shape(name: str) -> None:
    encoder = build_encoder(name, input_px=64, seed=0).eval()
    maps = encoder.feature_maps(torch.randn(2, 3, 64, 64))
    assert len(maps) == 4
    assert all(map_.ndim == 4 and map_.shape[0] == 2 for map_ in maps)
    assert [map_.shape[-1] for map_ in maps] == [64 // s for s in encoder.feature_strides]
    assert [map_.shape[1] for map_ in maps] == list(encoder.feature_channels)


def test_a_frozen_encoder_stays_as_it_is(encoder: Encoder) -> None:
    before = encoder.freeze().weights_sha256()
    images = torch.rand(4, 3, 64, 64)
    embedded = encoder.embed(images)
    for wake in (encoder.train, encoder.model.train, torch.nn.ModuleList([encoder]).train):
        wake()
        assert torch.equal(encoder.embed(images), embedded)
        assert encoder.weights_sha256() == before  # running statistics too
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_another_size_is_another_transform(encoder: Encoder) -> None:
    resized = encoder.at_size(128)
    assert resized.input_px == 128 and encoder.input_px == 64
    assert resized.transform_id() != encoder.transform_id()
    assert resized.weights_sha256() == encoder.weights_sha256()
    assert resized.embed(torch.rand(1, 3, 128, 128)).shape == (1, encoder.embed_dim)


def test_the_models_own_pooling_calls_the_model(encoder: Encoder) -> None:
    assert encoder.with_pooling("native") is encoder
    with pytest.raises(UsageError, match="cannot pool by 'median'"):
        encoder.with_pooling("median")


@pytest.mark.parametrize("name", sorted(SMALLEST.values()))
def test_the_mean_is_that_of_the_tokens(name: str) -> None:
    encoder = build_encoder(name, input_px=64, seed=0).eval().with_pooling("mean")
    images = torch.randn(2, 3, 64, 64)
    tokens = encoder.tokens(images)
    assert torch.allclose(encoder.embed(images), tokens.mean(1), atol=1e-5)
    assert torch.equal(encoder.token_map(images).flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize("name", sorted(SMALLEST.values()))
def test_an_export_loads_in_bare_timm_and_here(name: str, tmp_path: Path) -> None:
    encoder = build_encoder(name, input_px=64, seed=0).eval()
    export_encoder(encoder, tmp_path, {"method": "dino", "name": "mine"})
    images = torch.randn(2, 3, 64, 64)
    bare = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    again = load_encoder(tmp_path)
    assert torch.equal(bare(images), encoder.embed(images))
    assert torch.equal(again.embed(images), encoder.embed(images))
    assert again.name == "mine" and again.pooling == encoder.pooling
    assert again.transform_id() == encoder.transform_id()
    assert bare.pretrained_cfg["mean"] == pytest.approx(list(encoder.mean))


def test_a_random_encoder_of_the_same_architecture() -> None:
    encoder = build_encoder("resnet10t", input_px=32, seed=0)
    random = encoder.reinitialised(seed=4)
    assert random.name == "random/resnet10t"
    assert random.weights_sha256() != encoder.weights_sha256()
    assert random.transform_id() == encoder.transform_id()
    assert random.weights_sha256() == encoder.reinitialised(seed=4).weights_sha256()
    norms = [m for m in random.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.weight.any() for norm in norms)


def test_unknown_names_are_explained() -> None:
    with pytest.raises(UsageError, match="no encoder 'resnet19'"):
        build_encoder("resnet19")
    with pytest.raises(InputError, match="no architecture 'resnet19'"):
        plugins.load("encoders", "timm_hub").build("timm/resnet19")

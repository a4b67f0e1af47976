import pytest
import timm
from timm.optim import param_groups_layer_decay
from torch import nn

from eosin.encoders import build_encoder
from eosin.finetuning.classifier import Classifier
from eosin.finetuning.layers import layer_scales, parameter_groups
from tests.finetuning.textures import SETTINGS

MODELS = ("test_vit", "test_vit2", "resnet10t", "test_convnext", "test_efficientnet")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("decay", [0.75, 1.0])
def test_the_rates_and_weight_decays_are_those_of_timm_with_a_classifier(
    name: str, decay: float
) -> None:
    model = timm.create_model(name, num_classes=3)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    named = {id(parameter): key for key, parameter in model.named_parameters()}
    expected = {
        named[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(
            model, weight_decay=0.05, no_weight_decay_list=exempt, layer_decay=decay
        )
        for parameter in group["params"]
    }
    encoder = build_encoder(f"timm/{name}")
    names = {id(parameter): key for key, parameter in encoder.model.named_parameters()}
    groups = parameter_groups(encoder, nn.Linear(2, 3), decay, 0.05)
    assert [group["name"] for group in groups[:2]] == ["head", "head_bias"]
    assert [(group["scale"], group["decay"]) for group in groups[:2]] == [(1, 0.05), (1, 0.0)]
    found = {
        names[id(parameter)]: (group["scale"], group["decay"])
        for group in groups[2:]
        for parameter in group["params"]
    }
    assert found and found.items() <= expected.items()
    assert len(found) == len(names)
    assert len({group["name"] for group in groups}) == len(groups)


def test_a_vit_by_hand() -> None:
    scales = layer_scales(build_encoder("vit_tiny_patch16", input_px=32).model, 0.5)
    assert scales["norm.weight"] == scales["blocks.11.mlp.fc2.weight"] == 0.5
    assert scales["blocks.0.mlp.fc1.weight"] == 0.5**12
    assert scales["pos_embed"] == scales["cls_token"] == scales["patch_embed.proj.bias"] == 0.5**13


def test_a_model_whose_layers_timm_does_not_know_is_one_layer() -> None:
    assert layer_scales(nn.Linear(2, 2), 0.5) == {"weight": 0.5, "bias": 0.5}


def test_the_learning_rates_over_the_updates() -> None:
    encoder = build_encoder("resnet10t", input_px=32)
    classifier = Classifier(encoder, 2, SETTINGS, learning_rate=0.02, updates=20, batch_size=64)
    schedules = classifier.schedules()
    peak = 0.02 * 64 / 256
    assert [schedules["head"]["lr"](update) for update in (0, 1, 3, 4)] == pytest.approx(
        [peak / 4, peak / 2, peak, peak]
    )
    assert schedules["head"]["lr"](12) == pytest.approx(peak / 2)
    assert 0 < schedules["head"]["lr"](19) < peak / 50
    assert schedules["0.75"]["lr"](3) == pytest.approx(0.75 * peak)
    assert schedules["0.75"]["weight_decay"](0) == schedules["head"]["weight_decay"](7) == 0.05
    assert schedules["0.75_without_decay"]["weight_decay"](0) == 0

"""Checkpoints as the scripts of other libraries write them, each with all that it holds."""

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from eosin.errors import InputError, UsageError
from eosin.weights.files import load_file
from eosin.weights.layouts import LAYOUTS, extract

State = Mapping[str, Tensor]
PX = 64


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Weights and running statistics that no layer has by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(tensor + 0.1 * noise if tensor.ndim > 1 else 0.5 + noise)
    return model.eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return randomised(torchvision.models.resnet18(), 0)


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return randomised(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=PX), 1)


def features_of(resnet: nn.Module, images: Tensor) -> Tensor:
    """What comes before the classifier."""
    whole = nn.Sequential(*list(resnet.children())[:-1])
    return whole(images).flatten(1)


def encoder_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights without a classifier, other than those of any second network."""
    return {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith(("fc.", "head."))
    }


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def other(state: State) -> dict[str, Tensor]:
    """The second network, which must not be taken for the first."""
    return {key: value * 0 + 3 for key, value in state.items()}


def linear(name: str, *sizes: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(sizes), f"{name}.bias": torch.randn(sizes[0])}


def bottom_up(state: State) -> dict[str, Tensor]:
    """As `nn.Sequential(*list(resnet.children())[:-1])` names them."""
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    named = {key.split(".", 1)[0]: key for key in state}
    assert named.keys() == places.keys()
    return {
        f"{places[key.split('.', 1)[0]]}.{key.split('.', 1)[1]}": value
        for key, value in state.items()
    }


ARGS = argparse.Namespace(arch="resnet18", lr=0.1)
SGD: dict[str, Any] = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []}


def vissl(state: State) -> Any:
    model = {"trunk": under("_feature_blocks.", state), "heads": linear("0.clf.0", 5, 512)}
    return {
        "phase_idx": 9,
        "iteration": 10,
        "loss": {},
        "classy_state_dict": {
            "train": True,
            "base_model": {"model": model, "meta": {}},
            "meters": [],
            "optimizer": SGD,
            "phase_idx": 9,
        },
    }


def vissl_vit(state: State) -> Any:
    content = vissl(state)
    content["classy_state_dict"]["base_model"]["model"]["trunk"] = dict(state)
    return content


def vissl_extracted(state: State) -> Any:
    return {"model_state_dict": under("_feature_blocks.", state)}


def vissl_flat(state: State) -> Any:
    return under("base_model.model.trunk._feature_blocks.", state)


def dino(state: State) -> Any:
    """main_dino.py: the student is in DistributedDataParallel, the teacher of a ViT is not."""
    head = linear("head.mlp.0", 8, 192) | linear("head.last_layer.weight_v", 9, 8)
    return {
        "student": under("module.", under("backbone.", other(state)) | head),
        "teacher": under("backbone.", state) | head,
        "optimizer": SGD,
        "epoch": 3,
        "args": ARGS,
        "dino_loss": OrderedDict(center=torch.zeros(1, 9)),
        "fp16_scaler": {"scale": 65536.0},
    }


def dino_resnet(state: State) -> Any:
    """The teacher is in DistributedDataParallel too where it has BatchNorm."""
    content = dino(state)
    return {**content, "teacher": under("module.", content["teacher"])}


def moco(state: State) -> Any:
    """v2: the head is an MLP in the place of fc."""
    head = linear("fc.0", 512, 512) | linear("fc.2", 128, 512)
    return {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": under(
            "module.",
            {
                **under("encoder_q.", {**state, **head}),
                **under("encoder_k.", other({**state, **head})),
                "queue": torch.randn(128, 64),
                "queue_ptr": torch.zeros(1, dtype=torch.long),
            },
        ),
        "optimizer": SGD,
    }


def moco_v1(state: State) -> Any:
    content = moco(state)
    table = {key: value for key, value in content["state_dict"].items() if ".fc." not in key}
    return {**content, "state_dict": {**table, **linear("module.encoder_q.fc", 128, 512)}}


def moco_v3(state: State) -> Any:
    head = linear("fc.0", 512, 512) | linear("fc.3", 256, 512)
    table = under("base_encoder.", {**state, **head}) | under("momentum_encoder.", other(state))
    table |= linear("predictor.0", 4, 256)
    return {"epoch": 1, "arch": "r", "state_dict": under("module.", table), "scaler": {}}


def swav(state: State) -> Any:
    head = linear("projection_head.0", 4, 512) | linear("projection_head.3", 2, 4)
    table = {**state, **head, "prototypes.weight": torch.randn(30, 2)}
    return {"epoch": 1, "state_dict": under("module.", table), "optimizer": SGD, "amp": {}}


def swav_released(state: State) -> Any:
    return swav(state)["state_dict"]


def barlow_twins(state: State) -> Any:
    table = under("backbone.", state) | {"projector.0.weight": torch.randn(8, 512)}
    table |= {"bn.running_mean": torch.zeros(8)}
    return {"epoch": 1, "model": under("module.", table), "optimizer": SGD}


def solo_learn(state: State) -> Any:
    table = under("backbone.", state) | under("momentum_backbone.", other(state))
    table |= linear("classifier", 10, 512) | linear("projector.0", 4, 512)
    table |= linear("momentum_projector.0", 4, 512) | {"queue": torch.randn(2, 4, 8)}
    return lightning(table)


def solo_learn_old(state: State) -> Any:
    return lightning(under("encoder.", state) | linear("classifier", 10, 512))


def lightning(table: State) -> Any:
    return {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.0",
        "state_dict": OrderedDict(table),
        "callbacks": {"ModelCheckpoint": {"best_model_path": Path("x")}},
        "optimizer_states": [SGD],
        "hyper_parameters": ARGS,
    }


def lightly(state: State) -> Any:
    return lightning(
        under("backbone.", bottom_up(state)) | linear("projection_head.layers.0", 4, 9)
    )


def lightly_moco(state: State) -> Any:
    table = under("backbone.", bottom_up(state)) | linear("projection_head.layers.0", 4, 9)
    return lightning(table | under("backbone_momentum.", other(bottom_up(state))))


def lightly_dino(state: State) -> Any:
    named = bottom_up(state)
    table = under("student_backbone.", other(named)) | under("teacher_backbone.", named)
    return lightning(table | linear("student_head.layers.0", 4, 9))


def lightly_benchmark_dino(state: State) -> Any:
    """benchmarks/imagenet/resnet50/dino.py: `backbone` is the teacher."""
    table = under("backbone.", state) | under("student_backbone.", other(state))
    return lightning(table | linear("online_classifier.classification_head", 10, 512))


def lightly_plain(state: State) -> Any:
    return under("backbone.", bottom_up(state)) | linear("projection_head.layers.0", 4, 9)


def lightly_vit(state: State) -> Any:
    """MaskedVisionTransformerTIMM."""
    table = {**under("backbone.vit.", state), "backbone.mask_token": torch.zeros(1, 1, 192)}
    return lightning(table | linear("decoder_embed", 8, 192))


def plain(state: State) -> Any:
    return {**state, **linear("fc", 1000, 512)}


def parallel(state: State) -> Any:
    return {"epoch": 1, "state_dict": under("module.", plain(state)), "best_acc1": torch.tensor(1)}


def compiled(state: State) -> Any:
    return {"model": under("_orig_mod.", state), "args": ARGS, "scaler": {}}


def in_a_task(state: State) -> Any:
    return lightning(under("model.", plain(state)))


Writer = Callable[[State], Any]
RESNETS: list[tuple[Writer, str, str]] = [
    (vissl, "VISSL", "trunk"),
    (dino_resnet, "DINO", "teacher"),
    (moco, "MoCo", "query"),
    (moco_v3, "MoCo v3", "base"),
    (swav, "SwAV", "encoder"),
    (barlow_twins, "Barlow Twins", "encoder"),
    (solo_learn, "solo-learn", "online"),
    (lightly, "lightly", "backbone"),
    (parallel, "state dict", "encoder"),
]


@pytest.mark.parametrize(
    ("write", "layout", "branch"), RESNETS, ids=[each[0].__name__ for each in RESNETS]
)
def test_a_resnet_gives_the_features_that_it_gave_there(
    write: Writer, layout: str, branch: str, resnet: nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint.pth.tar"
    torch.save(write(encoder_of(resnet)), file)
    encoder = load_file(file)
    images = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(0))
    assert (encoder.embed(images) - features_of(resnet, images)).abs().max() < 1e-6
    assert encoder.architecture == "resnet18" and encoder.pooling == "mean"
    told = encoder.card.provenance
    assert (told["layout"], told["branch"]) == (layout, branch)


VARIANTS: list[tuple[Writer, str, str]] = [
    (vissl_extracted, "state dict", "encoder"),
    (vissl_flat, "state dict", "encoder"),
    (moco_v1, "MoCo", "query"),
    (swav_released, "SwAV", "encoder"),
    (solo_learn_old, "solo-learn", "online"),
    (lightly_moco, "lightly", "backbone"),
    (lightly_dino, "lightly", "teacher"),
    (lightly_benchmark_dino, "lightly", "backbone"),
    (lightly_plain, "lightly", "backbone"),
    (dict, "state dict", "encoder"),  # Barlow Twins' resnet50.pth, the released files
    (plain, "state dict", "encoder"),
    (compiled, "state dict", "encoder"),
    (in_a_task, "state dict", "encoder"),
]


@pytest.mark.parametrize(
    ("write", "layout", "branch"), VARIANTS, ids=[each[0].__name__ for each in VARIANTS]
)
def test_the_weights_of_a_resnet_are_found(
    write: Writer, layout: str, branch: str, resnet: nn.Module
) -> None:
    state = encoder_of(resnet)
    found = extract(write(state), Path("x"))
    assert (found.layout.name, found.layout.branch) == (layout, branch)
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in state.items())


VITS: list[tuple[Writer, str, str]] = [
    (vissl_vit, "VISSL", "trunk"),
    (dino, "DINO", "teacher"),
    (lightly_vit, "lightly", "backbone"),
    (solo_learn, "solo-learn", "online"),
    (dict, "state dict", "encoder"),  # DINO's dino_deitsmall16_pretrain.pth
    (parallel, "state dict", "encoder"),
]


@pytest.mark.parametrize(
    ("write", "layout", "branch"), VITS, ids=[each[0].__name__ for each in VITS]
)
def test_a_vit_gives_the_features_that_it_gave_there(
    write: Writer, layout: str, branch: str, vit: nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save(write(encoder_of(vit)), file)
    encoder = load_file(file)
    images = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(0))
    assert (encoder.embed(images) - vit(images)).abs().max() < 1e-6
    assert encoder.architecture == "vit_tiny_patch16_224" and encoder.pooling == "cls"
    assert encoder.input_px == PX
    told = encoder.card.provenance
    assert (told["layout"], told["branch"]) == (layout, branch)


def test_moco_v3_has_twelve_heads_in_a_small_vit(tmp_path: Path) -> None:
    """vits.py:112; shapes do not tell it, and features with timm's six are others."""
    own: dict[str, Any] = {"num_classes": 0, "img_size": PX}
    theirs = timm.create_model("vit_small_patch16_224", num_heads=12, **own).eval()
    torch.save(moco_v3(encoder_of(theirs)), tmp_path / "vit-s-300ep.pth.tar")
    images = torch.randn(1, 3, PX, PX)
    for architecture in (None, "vit_small_patch16"):
        encoder = load_file(tmp_path / "vit-s-300ep.pth.tar", architecture=architecture)
        assert encoder.card.model_args["num_heads"] == 12
        assert (encoder.embed(images) - theirs(images)).abs().max() < 1e-6


def test_dinos_vits_keep_its_resize_of_positions(vit: nn.Module, tmp_path: Path) -> None:
    torch.save(dino(encoder_of(vit)), tmp_path / "checkpoint.pth")
    torch.save(dict(encoder_of(vit)), tmp_path / "plain.pth")
    images = torch.randn(1, 3, 96, 96)
    theirs = load_file(tmp_path / "checkpoint.pth").at_size(96)
    timms = load_file(tmp_path / "plain.pth").at_size(96)
    assert "positions-dino" in theirs.transform_id() and "positions-timm" in timms.transform_id()
    assert not torch.allclose(theirs.embed(images), timms.embed(images), atol=1e-5)


@pytest.mark.parametrize(
    ("write", "branch", "name"),
    [
        (dino_resnet, "student", "DINO"),
        (moco, "key", "MoCo"),
        (moco_v3, "momentum", "MoCo v3"),
        (solo_learn, "momentum", "solo-learn"),
        (lightly_moco, "momentum", "lightly"),
        (lightly_dino, "student", "lightly"),
    ],
)
def test_the_other_network_can_be_asked_for(
    write: Writer, branch: str, name: str, resnet: nn.Module
) -> None:
    found = extract(write(encoder_of(resnet)), Path("x"), branch=branch)
    assert found.layout.name == name
    floats = [value for value in found.tensors.values() if value.is_floating_point()]
    assert all(bool((value == 3).all()) for value in floats)
    with pytest.raises(UsageError, match=f"no 'teachers'; it has .*{branch}"):
        extract(write(encoder_of(resnet)), Path("x"), branch="teachers")


def test_what_is_left_out_is_counted(resnet: nn.Module, capsys: Any, tmp_path: Path) -> None:
    state = encoder_of(resnet)
    assert dict(extract(swav(state), Path("x")).left_out) == {"projection_head": 4, "prototypes": 1}
    found = extract(moco(state), Path("x"))
    assert dict(found.left_out) == {
        "encoder_q": 4,
        "encoder_k": len(state) + 4,
        "queue": 1,
        "queue_ptr": 1,
    }
    assert found.tensors.keys() == state.keys()
    torch.save(swav(state), tmp_path / "swav.pth")
    load_file(tmp_path / "swav.pth")
    told = capsys.readouterr().err
    assert "SwAV layout" in told and "left out: projection_head (4), prototypes (1)" in told
    assert "normalised as ImageNet" in told


def test_a_whole_pickled_module_is_read_like_its_state_dict(
    resnet: nn.Module, tmp_path: Path
) -> None:
    torch.save({"net": 1, "model": nn.Sequential(OrderedDict(backbone=resnet))}, tmp_path / "a.pth")
    torch.save(resnet, tmp_path / "b.pth")
    images = torch.randn(1, 3, PX, PX)
    for file in ("a.pth", "b.pth"):
        encoder = load_file(tmp_path / file)
        assert (encoder.embed(images) - features_of(resnet, images)).abs().max() < 1e-6


def test_an_unknown_layout_lists_what_is_there() -> None:
    content = {
        "epoch": 1,
        "net": {f"stage{i}.conv.weight": torch.zeros(1) for i in range(5)},
        "opt": None,
    }
    with pytest.raises(InputError) as caught:
        extract(content, Path("odd.pth"))
    message = str(caught.value)
    assert message.startswith("odd.pth has no encoder in a layout that Eosin knows (VISSL, DINO,")
    assert "epoch, net (5 tensors: stage0.conv.weight, stage1.conv.weight, " in message
    assert "opt." in message
    for content in (None, 3, [torch.zeros(1)], {}, {"a": 1}):
        with pytest.raises(InputError, match="no encoder in a layout"):
            extract(content, Path("odd.pth"))


def test_a_resnet_for_small_images_of_lightly_is_not_mistaken(resnet: nn.Module) -> None:
    """ResNetGenerator has no max-pooling, so that its layers have other numbers."""
    table = {
        "backbone.0.weight": torch.zeros(64, 3, 3, 3),
        "backbone.1.running_mean": torch.zeros(64),
        **{f"backbone.{i}.0.conv1.weight": torch.zeros(64, 64, 3, 3) for i in (2, 3, 4, 5)},
    }
    with pytest.raises(InputError, match="no encoder in a layout"):
        extract({"state_dict": table}, Path("x"))


def test_a_checkpoint_of_eosin_points_to_its_export(tmp_path: Path) -> None:
    content = {"format": 2, "update": 10, "rng": [], "model": {"a": torch.zeros(1)}}
    with pytest.raises(InputError, match=r"checkpoint of an Eosin run.*run/encoder"):
        extract(content, tmp_path / "run" / "checkpoints" / "update-00000010.pt")


def test_every_row_names_its_source() -> None:
    assert all(layout.source for layout in LAYOUTS)

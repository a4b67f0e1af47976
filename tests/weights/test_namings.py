"""Names that other code gives to the weights of ViTs, and what timm computes with them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from eosin.weights.architectures import infer_architecture
from eosin.weights.layouts import extract
from eosin.weights.namings import naming_of

PX = 32
TINY: dict[str, Any] = {"num_classes": 0, "img_size": PX}
SWIGLU: dict[str, Any] = {
    **TINY,
    **{"embed_dim": 192, "num_heads": 3, "depth": 12, "patch_size": 16},
}


def with_scales(model: nn.Module) -> nn.Module:
    """Layer scales start so small that what is scaled would not matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.2, 1)
            elif "token" in name or "pos" in name:
                parameter.normal_()
    return model.eval()


def replaced(state: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for old, new in rules.items():
            key = re.sub(old, new, key)
        renamed[key] = value
    return renamed


def with_class_position(state: dict[str, Tensor], registers: str) -> dict[str, Tensor]:
    """DINOv2 gives the class token a position and registers none; timm neither."""
    position = torch.randn(1, 1, state["pos_embed"].shape[2])
    state["cls_token"] = state["cls_token"] - position
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    state[registers] = state.pop("reg_token")
    return state


def dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = {r"^blocks\.(\d+)\.": lambda match: f"blocks.{int(match[1]) // 3}.{match[1]}."}
    named = replaced(state, rules)  # type: ignore[arg-type]
    named["mask_token"] = torch.zeros(1, 192)
    return replaced(named, {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"})


def hugging_face(state: Mapping[str, Tensor], *, rules: Mapping[str, str]) -> dict[str, Tensor]:
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".qkv." in key:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                split[key.replace("attn.qkv", f"attention.attention.{part}")] = third
        else:
            split[key] = value
    named = replaced(
        split,
        {
            r"^cls_token": "embeddings.cls_token",
            r"^register_tokens": "embeddings.register_tokens",
            r"^pos_embed": "embeddings.position_embeddings",
            r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
            r"^norm\.": "layernorm.",
            r"attn\.proj": "attention.output.dense",
            **rules,
            r"^blocks\.": "encoder.layer.",
        },
    )
    named["embeddings.mask_token"] = torch.zeros(1, 192)
    named["pooler.dense.weight"] = torch.zeros(192, 192)
    return named


def hugging_face_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    norms = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    dense = {r"mlp\.fc1": "intermediate.dense", r"mlp\.fc2": "output.dense"}
    return hugging_face(state, rules=norms | dense)


def hugging_face_dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    scales = {r"ls([12])\.gamma": r"layer_scale\1.lambda1"}
    return hugging_face(state, rules=scales)


def hugging_face_swiglu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named = with_class_position(dict(state), "register_tokens")
    scales = {r"ls([12])\.gamma": r"layer_scale\1.lambda1"}
    layers = {r"mlp\.fc1": "mlp.weights_in", r"mlp\.fc2": "mlp.weights_out"}
    return hugging_face(named, rules=scales | layers)


Writer = Callable[[dict[str, Tensor]], dict[str, Tensor]]
REGISTERS = "vit_giant_patch14_reg4_dinov2"
CASES: dict[str, tuple[str, dict[str, Any], Writer, str]] = {
    "hugging_face_vit": ("vit_tiny_patch16_224", TINY, hugging_face_vit, "Hugging Face ViT"),
    "hugging_face_dinov2": (
        *("vit_tiny_patch16_224", {**TINY, "init_values": 1e-5}, hugging_face_dinov2),
        "Hugging Face DINOv2",
    ),
    "hugging_face_swiglu": (REGISTERS, SWIGLU, hugging_face_swiglu, "Hugging Face DINOv2"),
    "dinov2": ("vit_giant_patch14_dinov2", SWIGLU, dinov2, "DINOv2"),
    "dinov2_registers": (
        *(REGISTERS, SWIGLU),
        lambda state: dinov2(with_class_position(dict(state), "register_tokens")),
        "DINOv2",
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_vit_computes_the_same_under_timms_names(case: str) -> None:
    architecture, args, write, title = CASES[case]
    model = with_scales(timm.create_model(architecture, **args))
    content = {"state_dict": write(dict(model.state_dict())), "epoch": 1}
    found = extract(content, Path("x"))
    assert found.naming.title == title
    inferred = infer_architecture(found.tensors)
    assert inferred is not None
    again = timm.create_model(inferred[0], num_classes=0, **inferred[1]).eval()
    again.load_state_dict(found.tensors)
    images = torch.randn(1, 3, PX, PX)
    assert (again(images) - model(images)).abs().max() < 1e-6


def test_torchvisions_vit_computes_the_same() -> None:
    model = torchvision.models.VisionTransformer(
        image_size=PX, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
    ).eval()
    with torch.no_grad():
        model.encoder.pos_embedding.normal_()
        model.class_token.normal_()
    model.heads = nn.Identity()
    table = {**model.state_dict(), "heads.head.weight": torch.zeros(5, 192)}
    found = extract(table, Path("x"))
    assert found.naming.title == "torchvision ViT" and dict(found.left_out) == {"heads": 1}
    inferred = infer_architecture(found.tensors)
    assert inferred is not None and inferred[0] == "vit_tiny_patch16_224"
    again = timm.create_model(inferred[0], num_classes=0, **inferred[1]).eval()
    again.load_state_dict(found.tensors)
    images = torch.randn(1, 3, PX, PX)
    assert (again(images) - model(images)).abs().max() < 1e-5  # PyTorch's own attention there


def test_names_that_a_rule_does_not_know_stay_for_the_report() -> None:
    model = timm.create_model("vit_tiny_patch16_224", **TINY)
    table = hugging_face_vit(dict(model.state_dict()))
    table["encoder.layer.0.adapter.weight"] = torch.zeros(1)
    assert "encoder.layer.0.adapter.weight" in extract(table, Path("x")).tensors


def test_an_unknown_naming_is_none() -> None:
    assert naming_of({"a.weight": torch.zeros(1)}) is None
    assert naming_of({}) is None

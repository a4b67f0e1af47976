"""How other code names the weights of ResNets and ViTs, turned into the names of timm.

Sources: `nn.Sequential(*list(resnet.children())[:-1])` of the examples of lightly-ai/lightly;
facebookresearch/dinov2 `dinov2/models/vision_transformer.py` (blocks in chunks, registers) and
`dinov2/layers/swiglu_ffn.py`; huggingface/transformers `models/dinov2/convert_dinov2_to_hf.py` and
`models/vit/convert_dino_to_pytorch.py`, which map the other way; pytorch/vision
`torchvision/models/vision_transformer.py`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Naming:
    """One way of naming.

    Attributes:
        title: what it is called in messages.
        marks: what some name begins with, each, in all such tables.
        rename: gives the tensors under timm's names; names that it does not know stay.
        extras: beginnings of names that are no part of the encoder.
    """

    title: str
    marks: tuple[str, ...]
    rename: Callable[[Tensors], dict[str, Tensor]]
    extras: tuple[str, ...] = ()


def naming_of(tensors: Tensors) -> Naming | None:
    """Finds out how the weights of an encoder are named, or gives None where that is unknown."""
    for naming in _NAMINGS:
        if all(any(key.startswith(mark) for key in tensors) for mark in naming.marks):
            return naming
    return None


def as_is(names: Collection[str], tensors: Tensors) -> Naming | None:
    """Gives the naming of timm where a table has all names of a model, or None."""
    needed = {name for name in names if not name.endswith("num_batches_tracked")}
    if not needed or not needed <= tensors.keys():
        return None
    return Naming(title="timm", marks=(), rename=_unchanged)


def _substituted(tensors: Tensors, rules: Mapping[str, str]) -> dict[str, Tensor]:
    """Applies the first rule that matches the whole of each name; other names stay."""
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in rules.items()]
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        matches = ((pattern.fullmatch(key), new) for pattern, new in patterns)
        names = (match.expand(new) for match, new in matches if match is not None)
        renamed[next(names, key)] = value
    return renamed


def _unchanged(tensors: Tensors) -> dict[str, Tensor]:
    return dict(tensors)


def _from_sequential(tensors: Tensors) -> dict[str, Tensor]:
    """By position: convolution, BatchNorm, activation, pooling, four layers."""
    rules = {r"0\.(.+)": r"conv1.\1", r"1\.(.+)": r"bn1.\1"}
    rules |= {rf"{3 + layer}\.(.+)": rf"layer{layer}.\1" for layer in (1, 2, 3, 4)}
    return _substituted(tensors, rules)


def _from_dinov2(tensors: Tensors) -> dict[str, Tensor]:
    """Blocks in chunks keep their number in the second place; registers need no position."""
    flat = {
        re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", key): value for key, value in tensors.items()
    }
    renamed = {
        key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): value
        for key, value in flat.items()
    }
    return _with_registers(renamed, "register_tokens")


def _with_registers(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """As timm has it: neither the class token nor the registers have a position embedding."""
    if name in tensors:
        tensors["reg_token"] = tensors.pop(name)
        positions = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + positions[:, :1]
        tensors["pos_embed"] = positions[:, 1:]
    return tensors


def _with_joint_attention(tensors: Tensors) -> dict[str, Tensor]:
    """Puts queries, keys and values, in this order, into one matrix."""
    joint = {key: value for key, value in tensors.items() if ".attn.query." not in key}
    for key, query in tensors.items():
        if ".attn.query." in key:
            parts = (joint.pop(key.replace(".query.", f".{part}.")) for part in ("key", "value"))
            joint[key.replace(".query.", ".qkv.")] = torch.cat([query, *parts])
    return joint


_HUGGING_FACE_EMBEDDINGS = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection\.(.+)": r"patch_embed.proj.\1",
    r"encoder\.layer\.(\d+)\.attention\.attention\.(.+)": r"blocks.\1.attn.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)": r"blocks.\1.attn.proj.\2",
    r"layernorm\.(.+)": r"norm.\1",
}


def _from_hugging_face_vit(tensors: Tensors) -> dict[str, Tensor]:
    rules = {
        **_HUGGING_FACE_EMBEDDINGS,
        r"encoder\.layer\.(\d+)\.layernorm_before\.(.+)": r"blocks.\1.norm1.\2",
        r"encoder\.layer\.(\d+)\.layernorm_after\.(.+)": r"blocks.\1.norm2.\2",
        r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)": r"blocks.\1.mlp.fc1.\2",
        r"encoder\.layer\.(\d+)\.output\.dense\.(.+)": r"blocks.\1.mlp.fc2.\2",
    }
    return _with_joint_attention(_substituted(tensors, rules))


def _from_hugging_face_dinov2(tensors: Tensors) -> dict[str, Tensor]:
    rules = {
        **_HUGGING_FACE_EMBEDDINGS,
        r"embeddings\.register_tokens": "register_tokens",
        r"encoder\.layer\.(\d+)\.(norm[12])\.(.+)": r"blocks.\1.\2.\3",
        r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
        r"encoder\.layer\.(\d+)\.mlp\.(?:fc1|weights_in)\.(.+)": r"blocks.\1.mlp.fc1.\2",
        r"encoder\.layer\.(\d+)\.mlp\.(?:fc2|weights_out)\.(.+)": r"blocks.\1.mlp.fc2.\2",
    }
    joint = _with_joint_attention(_substituted(tensors, rules))
    return _with_registers(joint, "register_tokens")


def _from_torchvision_vit(tensors: Tensors) -> dict[str, Tensor]:
    layer = r"encoder\.layers\.encoder_layer_(\d+)\."
    rules = {
        "class_token": "cls_token",
        r"encoder\.pos_embedding": "pos_embed",
        r"conv_proj\.(.+)": r"patch_embed.proj.\1",
        layer + r"ln_([12])\.(.+)": r"blocks.\1.norm\2.\3",
        layer + r"self_attention\.in_proj_(.+)": r"blocks.\1.attn.qkv.\2",
        layer + r"self_attention\.out_proj\.(.+)": r"blocks.\1.attn.proj.\2",
        layer + r"mlp\.(?:0|linear_1)\.(.+)": r"blocks.\1.mlp.fc1.\2",
        layer + r"mlp\.(?:3|linear_2)\.(.+)": r"blocks.\1.mlp.fc2.\2",
        r"encoder\.ln\.(.+)": r"norm.\1",
    }
    return _substituted(tensors, rules)


def _from_old_swin(tensors: Tensors) -> dict[str, Tensor]:
    """Of timm before 0.9: downsampling belonged to the layer before it; masks were kept."""
    computed = ("attn_mask", "relative_position_index")
    return {
        re.sub(
            r"^layers\.(\d+)\.downsample",
            lambda match: f"layers.{int(match[1]) + 1}.downsample",
            key,
        ): value
        for key, value in tensors.items()
        if not key.endswith(computed)
    }


_PATCHES = "embeddings.patch_embeddings.projection.weight"
_HUGGING_FACE_EXTRAS = ("pooler.", "classifier.", "embeddings.mask_token")
_NAMINGS = (
    Naming(
        title="Hugging Face DINOv2",
        marks=(_PATCHES, "encoder.layer.0.layer_scale1.lambda1"),
        rename=_from_hugging_face_dinov2,
        extras=_HUGGING_FACE_EXTRAS,
    ),
    Naming(
        title="Hugging Face ViT",
        marks=(_PATCHES, "encoder.layer.0.layernorm_before.weight"),
        rename=_from_hugging_face_vit,
        extras=_HUGGING_FACE_EXTRAS,
    ),
    Naming(
        title="torchvision ViT",
        marks=("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"),
        rename=_from_torchvision_vit,
        extras=("heads.", "mask_token"),
    ),
    *(
        Naming(
            title="DINOv2",
            marks=("patch_embed.proj.weight", *marks),
            rename=_from_dinov2,
            extras=("mask_token",),
        )
        for marks in (
            ("blocks.0.0.norm1.weight",),
            ("blocks.0.norm1.weight", "blocks.0.mlp.w12."),
            ("blocks.0.norm1.weight", "register_tokens"),
            ("blocks.0.norm1.weight", "mask_token"),
        )
    ),
    Naming(
        title="ViT",
        marks=("patch_embed.proj.weight", "blocks.0.norm1.weight"),
        rename=_unchanged,
    ),
    Naming(
        title="Swin of timm 0.5",
        marks=("layers.0.blocks.0.norm1.weight", "layers.0.downsample.reduction.weight"),
        rename=_from_old_swin,
    ),
    Naming(
        title="ResNet", marks=("conv1.", "bn1.weight", "layer4.0.conv1.weight"), rename=_unchanged
    ),
    Naming(
        title="ResNet in a Sequential",
        marks=("0.weight", "1.running_mean", "4.0.conv1.weight", "7.0.conv1.weight"),
        rename=_from_sequential,
    ),
)

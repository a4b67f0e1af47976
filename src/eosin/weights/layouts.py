"""Where checkpoints of other libraries hold the encoder.

A checkpoint holds more than an encoder: heads, a teacher or a key encoder, an optimizer, settings.
Each row says in which table the weights lie, under which prefix, and which of several networks it
is. The rows are tried in order; the first whose weights are those of an encoder is taken.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from eosin.errors import InputError, UsageError
from eosin.weights.inert_pickle import Stub
from eosin.weights.namings import Naming, as_is, naming_of


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One place where checkpoints hold an encoder.

    Attributes:
        name: of the library or method whose scripts write it.
        branch: which of its networks this is, such as `teacher`.
        source: the code that writes or reads it, which the row was taken from.
        table: keys that lead to the table of weights.
        prefix: what the encoder's names begin with there, behind any `module.`.
        marks: parts of names that only this library's tables have; none where any will do.
        heads: names, behind the prefix, that begin what is left out.
        vit_heads: attention heads by embedding dimension, where they are not timm's.
    """

    name: str
    branch: str = "encoder"
    source: str
    table: tuple[str, ...] = ()
    prefix: str = ""
    marks: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    vit_heads: Mapping[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """An encoder's weights, taken out of a checkpoint.

    Attributes:
        layout: where they lay.
        naming: how they were named there.
        tensors: the weights, by timm's names.
        left_out: how many tensors of which other parts lay beside them.
    """

    layout: Layout
    naming: Naming
    tensors: dict[str, Tensor]
    left_out: Mapping[str, int]


_FC = ("fc.", "head.", "classifier.", "heads.")
_SWAV = "facebookresearch/swav main_swav.py:232 and src/resnet50.py:192"
_DINO = "facebookresearch/dino main_dino.py:278 and utils.py:593 (MultiCropWrapper)"
_MOCO = "facebookresearch/moco main_moco.py:389 and main_lincls.py:250"
_MOCO_V3 = "facebookresearch/moco-v3 main_moco.py:310, moco/builder.py:27 and vits.py:112"
_SOLO = "vturrisi/solo-learn main_linear.py:73 and solo/methods/base.py:643"
_LIGHTLY = "lightly-ai/lightly examples/pytorch_lightning and benchmarks/imagenet"
_VISSL = (
    "facebookresearch/vissl vissl/models/base_ssl_model.py:381 and vissl/hooks/log_hooks.py:522"
)
_VISSL_TABLE = ("classy_state_dict", "base_model", "model", "trunk")
_MOCO_V3_HEADS = {384: 12}

LAYOUTS: tuple[Layout, ...] = (
    Layout(name="VISSL", branch="trunk", source=_VISSL, table=_VISSL_TABLE),
    Layout(
        name="VISSL",
        branch="average",
        source=_VISSL,
        table=("classy_state_dict", "ema_model", "model", "trunk"),
    ),
    *(
        Layout(name="DINO", branch=each, source=_DINO, table=(each,), prefix=prefix, heads=_FC)
        for each in ("teacher", "student")
        for prefix in ("backbone.", "")
    ),
    *(
        Layout(name="MoCo", branch=branch, source=_MOCO, table=table, prefix=prefix, heads=("fc.",))
        for branch, prefix in (("query", "encoder_q."), ("key", "encoder_k."))
        for table in (("state_dict",), ())
    ),
    *(
        Layout(
            name="MoCo v3",
            branch=branch,
            source=_MOCO_V3,
            table=("state_dict",),
            prefix=prefix,
            heads=("fc.", "head."),
            vit_heads=_MOCO_V3_HEADS,
        )
        for branch, prefix in (("base", "base_encoder."), ("momentum", "momentum_encoder."))
    ),
    *(
        Layout(
            name="SwAV",
            source=_SWAV,
            table=table,
            marks=("prototypes", "projection_head", "layer1.0.conv1"),
            heads=("projection_head.", "prototypes."),
        )
        for table in (("state_dict",), ())
    ),
    Layout(
        name="Barlow Twins",
        source="facebookresearch/barlowtwins main.py:146 and :191",
        table=("model",),
        prefix="backbone.",
        marks=("projector.0.weight",),
        heads=("fc.",),
    ),
    *(
        Layout(
            name="solo-learn",
            branch=branch,
            source=_SOLO,
            table=("state_dict",),
            prefix=prefix,
            marks=("classifier.weight",),
            heads=_FC,
        )
        for branch, prefix in (
            ("online", "backbone."),
            ("momentum", "momentum_backbone."),
            ("online", "encoder."),
        )
    ),
    *(
        Layout(
            name="lightly", branch=branch, source=_LIGHTLY, table=table, prefix=prefix, heads=_FC
        )
        for table in (("state_dict",), ("model",), ("model_state_dict",), ())
        for branch, prefix in (
            ("backbone", "backbone."),
            ("teacher", "teacher_backbone."),
            ("momentum", "backbone_momentum."),
            ("student", "student_backbone."),
        )
    ),
    *(
        Layout(
            name="state dict",
            source="timm, torchvision, Hugging Face and most training scripts",
            table=table,
            prefix=prefix,
            heads=_FC,
        )
        for table in ((), ("state_dict",), ("model",), ("model_state_dict",))
        for prefix in ("", "encoder.", "dinov2.")
    ),
)
"""Places where checkpoints hold an encoder, the one to prefer first."""

# What stands before every name of a table: of DistributedDataParallel and torch.compile.
_OUTER = ("module.", "_orig_mod.")
# And of VISSL's and lightly's modules around a network.
_INNER = (*_OUTER, "base_model.", "model.", "trunk.", "_feature_blocks.", "vit.")


def extract(
    content: Any, source: Path, *, branch: str | None = None, names: Collection[str] = ()
) -> Extracted:
    """Takes the encoder out of what a checkpoint holds.

    Args:
        content: what `read_checkpoint` gave.
        source: the file, for messages.
        branch: which network, where there are several: `student` or `teacher`, `query` or `key`,
            `online` or `momentum`, and so on; by default what its method evaluates.
        names: of the weights of the model that is looked for, where it is known.

    Raises:
        InputError: no known encoder is found; the message lists what the checkpoint holds.
        UsageError: it has no such branch.
    """
    if isinstance(content, Stub):
        content = state_of(content)
    _refuse_own(content, source)
    found: list[Extracted] = []
    for layout in LAYOUTS:
        if (extracted := _extracted(content, layout, names)) is not None:
            if branch in (None, layout.branch):
                return extracted
            found.append(extracted)
    if found:
        branches = sorted({each.layout.branch for each in found})
        raise UsageError(f"{source} has no {branch!r}; it has {', '.join(branches)}.")
    raise InputError(_what_is_there(content, source))


def state_of(module: Stub) -> dict[str, Any]:
    """Gives the tensors of a whole module that was pickled, by the names of its `state_dict`."""
    tensors: dict[str, Any] = {}
    state = module.state if isinstance(module.state, dict) else {}
    for kind in ("_parameters", "_buffers"):
        own = state.get(kind)
        if isinstance(own, dict):
            tensors |= {str(key): each for key, each in own.items() if isinstance(each, Tensor)}
    inner = state.get("_modules")
    for name, child in inner.items() if isinstance(inner, dict) else ():
        if isinstance(child, Stub):
            tensors |= {f"{name}.{key}": each for key, each in state_of(child).items()}
    return tensors


def _extracted(content: Any, layout: Layout, names: Collection[str]) -> Extracted | None:
    table = _tensors_at(content, layout.table)
    if not all(any(mark in key for key in table) for mark in layout.marks):
        return None
    outer = _unwrapped(table)
    inner = _behind(layout.prefix, outer)
    known = _innermost(
        {
            key: value
            for key, value in inner.items()
            if key in names or not key.startswith(layout.heads)
        },
        names,
    )
    if known is None:
        return None
    naming, tensors = known
    around = (*naming.extras, *layout.heads)
    encoder = {
        key: value for key, value in tensors.items() if key in names or not key.startswith(around)
    }
    taken = {id(value) for value in encoder.values()}
    beside = [key for key, value in outer.items() if id(value) not in taken]
    return Extracted(
        layout=layout,
        naming=naming,
        tensors=naming.rename(encoder),
        left_out=Counter(key.split(".")[0] for key in beside),
    )


def _tensors_at(content: Any, way: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of the table that lies there; none where there is no table."""
    for key in way:
        content = content.get(key) if isinstance(content, Mapping) else None
    if isinstance(content, Stub):
        content = state_of(content)
    table = content if isinstance(content, Mapping) else {}
    return {str(key): value for key, value in table.items() if isinstance(value, Tensor)}


def _unwrapped(table: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in _OUTER:
        if table and all(key.startswith(wrapper) for key in table):
            return _unwrapped(_behind(wrapper, table))
    return table


def _innermost(
    table: dict[str, Tensor], names: Collection[str], depth: int = 4
) -> tuple[Naming, dict[str, Tensor]] | None:
    """Goes through modules around a network until what is inside has known names."""
    naming = as_is(names, table) or naming_of(table)
    if naming is not None:
        return naming, table
    for wrapper in _INNER if depth and table else ():
        found = _innermost(_behind(wrapper, table), names, depth - 1)
        if found is not None:
            return found
    return None


def _behind(prefix: str, table: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in table.items() if key.startswith(prefix)
    }


def _refuse_own(content: Any, source: Path) -> None:
    if isinstance(content, Mapping) and {"format", "update", "rng"} <= content.keys():
        folder = source.resolve().parent.parent / "encoder"
        raise InputError(
            f"{source} is a checkpoint of an Eosin run, from which the run resumes; load the "
            f"encoder that the run exports instead: {folder}."
        )


def _what_is_there(content: Any, source: Path) -> str:
    lines: list[str] = []
    if isinstance(content, Mapping):
        for key in content:
            inner = _tensors_at(content, (str(key),))
            shown = ", ".join(list(inner)[:3]) + (", …" if len(inner) > 3 else "")
            lines.append(f"{key} ({len(inner)} tensors: {shown})" if inner else str(key))
    more = f", and {len(lines) - 8} more" if len(lines) > 8 else ""
    holds = f"It holds {', '.join(lines[:8])}{more}." if lines else f"It holds {content!r:.60}."
    return (
        f"{source} has no encoder in a layout that Eosin knows ({', '.join(_layout_names())}). "
        f"{holds} Save the encoder's own state_dict with timm's or torchvision's names."
    )


def _layout_names() -> list[str]:
    return list(dict.fromkeys(layout.name for layout in LAYOUTS))

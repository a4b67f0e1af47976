"""A captured network rewritten for the CPU: the same numbers with less work.

BatchNorm goes into the weights of the convolution before it. Shortcut and activation are added by
oneDNN while the convolution's result is still in registers, and the weights lie in memory as its
kernels read them. It is what torch.compile does to these layers, without its minutes of compiling
and without a C++ compiler.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

_aten = torch.ops.aten
# What oneDNN calls the activations.
_ACTIVATIONS: dict[Any, str] = {
    _aten.relu.default: "relu",
    _aten.relu_.default: "relu",
    _aten.hardtanh.default: "hardtanh",
    _aten.hardtanh_.default: "hardtanh",
    _aten.silu.default: "swish",
    _aten.silu_.default: "swish",
    _aten.hardswish.default: "hardswish",
    _aten.hardswish_.default: "hardswish",
}
_RELU = {_aten.relu.default, _aten.relu_.default}
_OPERATORS = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")


def is_possible() -> bool:
    """Tells whether this PyTorch has oneDNN and its operators that are used here."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in _OPERATORS
    )


def pack_convolutions(network: GraphModule) -> int:
    """Replaces the float32 convolutions of a network, which changes in place, not its parameters.

    Args:
        network: captured in evaluation mode on the CPU, with a fixed batch size.

    Returns:
        How many convolutions were replaced.
    """
    count = 0
    for node in list(network.graph.nodes):
        if node.target is _aten.conv2d.default:
            count += _pack(network, node, f"packed_convolution_{count}")
    network.graph.lint()
    network.recompile()
    return count


class PackedConvolution(nn.Module):
    """A convolution, then perhaps the addition of a shortcut, then perhaps an activation."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        given: dict[str, Any],
        *,
        activation: Node | None,
        overwrites_shortcut: bool,
    ) -> None:
        super().__init__()
        stride, padding, dilation = (
            _pair(given[name]) for name in ("stride", "padding", "dilation")
        )
        self._geometry = (padding, stride, dilation, given["groups"])
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, stride, dilation, given["groups"], shape_of(given["input"])
        )
        self._bias = bias
        self._activation, self._bounds = "none", list[float]()
        if activation is not None:
            self._activation = _ACTIVATIONS[activation.target]
            after = arguments_of(activation)
            if self._activation == "hardtanh":
                self._bounds = [after["min_val"], after["max_val"]]
        self._overwrites_shortcut = overwrites_shortcut

    def forward(self, images: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Convolves [B, C, H, W] to [B, D, h, w] and adds the shortcut, which has that shape."""
        weights = (self._weight, self._bias, *self._geometry)
        if shortcut is None:
            rest = (*weights, self._activation, self._bounds, "")
            return torch.ops.mkldnn._convolution_pointwise(images, *rest)
        after = None if self._activation == "none" else self._activation
        rest = (*weights, "add", 1.0, after, self._bounds, "")
        if self._overwrites_shortcut:
            return torch.ops.mkldnn._convolution_pointwise_.binary(shortcut, images, *rest)
        return torch.ops.mkldnn._convolution_pointwise.binary(images, shortcut, *rest)


def _pack(network: GraphModule, node: Node, name: str) -> bool:
    given = arguments_of(node)
    weight, bias = _constant(network, given["weight"]), _constant(network, given["bias"])
    if weight is None or (bias is None and given["bias"] is not None):
        return False
    last = node
    norm = only_user(node)
    if norm is not None and norm.target is _aten.batch_norm.default:
        folded = _fold(network, arguments_of(norm), weight, bias)
        if folded is not None:
            (weight, bias), last = folded, norm
    last, shortcut = _find_shortcut(last)
    overwrites = shortcut is not None and _is_free_after(network, shortcut, last)
    after = only_user(last)
    # After a shortcut oneDNN is used with ReLU alone.
    possible = _ACTIVATIONS if shortcut is None else _RELU
    activation = after if after is not None and after.target in possible else None
    layer = PackedConvolution(
        weight, bias, given, activation=activation, overwrites_shortcut=overwrites
    )
    last = last if activation is None else activation
    network.add_submodule(name, layer)
    with network.graph.inserting_before(last):
        inputs = (given["input"],) if shortcut is None else (given["input"], shortcut)
        packed = network.graph.call_module(name, inputs)
    packed.meta = dict(last.meta)
    last.replace_all_uses_with(packed)
    erase(last, keep=packed)
    return True


def _fold(
    network: GraphModule, norm: dict[str, Any], weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Puts a BatchNorm with fixed statistics into the convolution before it, in float64."""
    scale, shift, mean, variance = (
        _constant(network, norm[key]) for key in ("weight", "bias", "running_mean", "running_var")
    )
    if norm["training"] or mean is None or variance is None:
        return None
    factor = (variance.double() + norm["eps"]).rsqrt()
    factor = factor if scale is None else factor * scale.double()
    offset = -mean.double() if bias is None else bias.double() - mean.double()
    offset = offset * factor if shift is None else offset * factor + shift.double()
    return (weight.double() * factor.view(-1, 1, 1, 1)).float(), offset.float()


def _find_shortcut(node: Node) -> tuple[Node, Node | None]:
    """Finds the addition of a tensor of the same shape, where a result is used for nothing else.

    Returns:
        The node of the sum, or `node`; and what is added to it, or None.
    """
    add = only_user(node)
    if add is None or add.kwargs or len(add.args) != 2:
        return node, None
    one, other = add.args
    # In place, the sum may only go where the convolution's result is.
    is_sum = add.target is _aten.add.Tensor or (add.target is _aten.add_.Tensor and one is node)
    shortcut = other if one is node else one
    if not is_sum or not isinstance(shortcut, Node) or shortcut is node:
        return node, None
    return (add, shortcut) if shape_of(shortcut) == shape_of(node) else (node, None)


def _is_free_after(network: GraphModule, shortcut: Node, add: Node) -> bool:
    """Tells whether nothing reads a shortcut after it was added, so that its memory can be used."""

    def is_packed(node: Node) -> bool:
        return node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), PackedConvolution
        )

    fresh = is_packed(shortcut) or shortcut.target is _aten.max_pool2d.default
    readers = [user for user in shortcut.users if user is not add]
    return fresh and all(is_packed(reader) and reader < add for reader in readers)


def erase(node: Node, keep: Node) -> None:
    """Removes a node that nothing uses, and what was there for it alone, except for `keep`.

    PyTorch's own elimination of dead code keeps a dropout, even one that does nothing.
    """
    sources = node.all_input_nodes
    node.graph.erase_node(node)
    for source in sources:
        if not source.users and source is not keep and source.op != "placeholder":
            erase(source, keep)


def only_user(node: Node) -> Node | None:
    """The one node that uses a node's result, or None where there are several or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def arguments_of(node: Node) -> dict[str, Any]:
    """The arguments of a node's operator by name, with its defaults."""
    schema = node.target._schema.arguments  # pyright: ignore
    found = {each.name: each.default_value for each in schema if each.has_default_value()}
    return found | dict(zip((each.name for each in schema), node.args, strict=False)) | node.kwargs


def shape_of(node: Node) -> list[int]:
    """The shape of a node's result."""
    return [int(length) for length in node.meta["val"].shape]


def _constant(network: GraphModule, node: object) -> Tensor | None:
    """The float32 tensor that a node stands for, or None if it is computed or of another type."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = network
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if value.dtype == torch.float32 else None


def _pair(value: int | list[int]) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values

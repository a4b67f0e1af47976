"""Vision transformers whose embedding is the class token compute the last block for it alone.

The other tokens of the last block are read by its attention and by nothing after it, so that its
second half, three quarters of the block's work, is done for one token instead of for all: 6 % of a
ViT with twelve blocks. The numbers stay the same.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from eosin.embeddings._fusing import arguments_of, erase, shape_of

_aten = torch.ops.aten
_ATTENTION = _aten.scaled_dot_product_attention.default
_TOKEN_BY_TOKEN = {_aten.linear.default, _aten.gelu.default, _aten.dropout.default}
_PAIRWISE = {_aten.add.Tensor, _aten.mul.Tensor}
_RESHAPE = {_aten.reshape.default, _aten.view.default}


def compute_class_token_alone(network: GraphModule) -> bool:
    """Rewrites a captured network in place, if its first token is all that the embedding takes.

    Args:
        network: captured in evaluation mode, with a fixed batch size.

    Returns:
        Whether it was such a network.
    """
    chosen = [node for node in network.graph.nodes if _takes_first_token(node)]
    attentions = [node for node in network.graph.nodes if node.target is _ATTENTION]
    if len(chosen) != 1 or not attentions:
        return False
    narrowing = _Narrowing(chosen[0], attentions[-1])
    tokens = arguments_of(chosen[0])["self"]
    narrowed = narrowing.narrow(tokens)
    unused = narrowed
    if narrowing.attention_is_narrow:
        chosen[0].update_arg(0, narrowed)
        unused = tokens
    if not unused.users:
        erase(unused, keep=chosen[0])
    network.graph.lint()
    network.recompile()
    return narrowing.attention_is_narrow


def _takes_first_token(node: Node) -> bool:
    if node.target is not _aten.select.int:
        return False
    given = arguments_of(node)
    return given["dim"] == 1 and given["index"] == 0 and len(shape_of(given["self"])) == 3


class _Narrowing:
    """Adds nodes that compute the first token alone, from the embedding back to the attention.

    Args:
        chosen: the node that takes the first token; nodes are added before it.
        attention: the last one.
    """

    def __init__(self, chosen: Node, attention: Node) -> None:
        self._chosen, self._graph, self._attention = chosen, chosen.graph, attention
        self._needed_for_all = _ancestors(attention)
        self._tokens = shape_of(arguments_of(chosen)["self"])[1]
        self._done: dict[Node, Node] = {}
        self.attention_is_narrow = False

    def narrow(self, node: Node) -> Node:
        """Gives a node for the first token [B, 1, D] of what `node` gives, [B, N, D]."""
        if node not in self._done:
            self._done[node] = self._narrow(node)
        return self._done[node]

    def _narrow(self, node: Node) -> Node:
        source = node.args[0] if node.args else None
        if node in self._needed_for_all:
            return self._cut(node, dim=1)
        if isinstance(source, Node) and _is_token_by_token(node):
            return self._call(node, (self.narrow(source), *node.args[1:]))
        if node.target in _PAIRWISE and not node.kwargs:
            return self._call(node, tuple(self._narrow_side(side) for side in node.args))
        if node.target in _RESHAPE and isinstance(source, Node) and self._joins_heads(source):
            return self._narrow_attention(node, source)
        return self._cut(node, dim=1)

    def _narrow_side(self, side: Any) -> Any:
        """Narrows what has a row a token; biases and scales stay."""
        has_tokens = isinstance(side, Node) and shape_of(side)[-2:-1] == [self._tokens]
        return self.narrow(side) if has_tokens else side

    def _joins_heads(self, transpose: Node) -> bool:
        """Tells whether the heads of the attention [B, heads, N, D] are brought together here."""
        is_transpose = transpose.target is _aten.transpose.int and transpose.args[1:] == (1, 2)
        if not is_transpose or transpose.args[0] is not self._attention:
            return False
        given = arguments_of(self._attention)
        is_plain = given["attn_mask"] is None and not given["is_causal"]
        return is_plain and shape_of(given["query"])[2] == self._tokens

    def _narrow_attention(self, reshape: Node, transpose: Node) -> Node:
        """Lets the first token alone ask, and all tokens answer."""
        self.attention_is_narrow = True
        queries, *rest = self._attention.args
        assert isinstance(queries, Node)
        answer = self._call(self._attention, (self._cut(queries, dim=2), *rest))
        swapped = self._call(transpose, (answer, *transpose.args[1:]))
        batch, _, length = shape_of(reshape)
        return self._call(reshape, (swapped, [batch, 1, length]))

    def _cut(self, node: Node, dim: int) -> Node:
        with self._graph.inserting_before(self._chosen):
            return self._graph.call_function(_aten.slice.Tensor, (node, dim, 0, 1))

    def _call(self, like: Node, arguments: tuple[Any, ...]) -> Node:
        with self._graph.inserting_before(self._chosen):
            assert callable(like.target)
            return self._graph.call_function(like.target, arguments, dict(like.kwargs))


def _is_token_by_token(node: Node) -> bool:
    if node.target is _aten.layer_norm.default:
        return len(arguments_of(node)["normalized_shape"]) == 1
    if node.target is _aten.slice.Tensor:
        return arguments_of(node)["dim"] == 0
    return node.target in _TOKEN_BY_TOKEN


def _ancestors(node: Node) -> set[Node]:
    """All nodes that a node's result depends on."""
    found: set[Node] = set()
    waiting = list(node.all_input_nodes)
    while waiting:
        source = waiting.pop()
        if source not in found:
            found.add(source)
            waiting += source.all_input_nodes
    return found

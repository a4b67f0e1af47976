"""An encoder as one graph from pixels to embeddings, which the back ends compile or rewrite."""

import warnings

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from eosin.encoders import Encoder


class FromPixels(nn.Module):
    """An encoder with its normalisation in front.

    Args:
        encoder: in evaluation mode; it is used, not copied.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeds uint8 images [B, H, W, 3] as float32 [B, D]."""
        # The permuted view is what PyTorch calls channels_last: nothing is moved.
        images = self.encoder.normalise(pixels.permute(0, 3, 1, 2))
        return self.encoder.embed(images).float()


def capture(encoder: Encoder, images: int) -> ExportedProgram:
    """Records what an encoder computes for a fixed number of images.

    Args:
        encoder: in evaluation mode, on the CPU.
        images: how many; the graph takes exactly so many.

    Raises:
        Exception: PyTorch cannot record this encoder, for which it has many classes of errors.
    """
    side = encoder.input_px
    pixels = torch.zeros(images, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # PyTorch warns of what it is going to change in its own exporter.
        warnings.simplefilter("ignore")
        return torch.export.export(FromPixels(encoder), (pixels,), strict=False)


def network_of(program: ExportedProgram) -> GraphModule:
    """The recorded network as a module that can be rewritten; it shares the encoder's weights."""
    network = program.module()
    assert isinstance(network, GraphModule)
    for node in list(network.graph.nodes):
        # The checks that inputs have the recorded type and shape; autocast changes types.
        is_check = node.target in ("_guards_fn", torch.ops.aten._assert_tensor_metadata.default)
        if is_check and not node.users:
            network.graph.erase_node(node)
    network.recompile()
    return network

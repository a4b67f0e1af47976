import importlib
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eosin.embeddings import _fusing
from eosin.embeddings._capture import capture, network_of
from eosin.embeddings._class_token import compute_class_token_alone
from eosin.embeddings._pieces import in_pieces
from eosin.embeddings._torch_backend import TorchBackend
from eosin.embeddings.backends import BACKENDS, Backend, open_backend
from eosin.encoders import Encoder, EncoderCard, build_encoder
from eosin.errors import InputError, UsageError

CPU = torch.device("cpu")
PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime"}


def awake(encoder: Encoder) -> Encoder:
    """Gives BatchNorms statistics as after training, and wakes branches that start at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.0),
                    (module.bias, -0.2, 0.2),
                    (module.running_mean, -0.3, 0.3),
                    (module.running_var, 0.5, 2.0),
                ):
                    assert tensor is not None
                    tensor.uniform_(low, high, generator=generator)
    return encoder.eval()


def build(name: str, **arguments: object) -> Encoder:
    return awake(build_encoder(name, seed=0, **arguments))  # pyright: ignore


def images_for(encoder: Encoder, count: int = 7) -> np.ndarray:
    side = encoder.input_px
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def directly(encoder: Encoder, batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()
        return encoder.embed(encoder.normalise(pixels)).numpy()


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference in units of the embeddings' root mean square."""
    return float(np.abs(found - expected).max() / np.sqrt((expected**2).mean()))


def open_torch(encoder: Encoder, batch_size: int = 5, images: int | None = None) -> TorchBackend:
    found = open_backend(
        encoder, backend="auto", precision="fp32", batch_size=batch_size, device=CPU, images=images
    )
    assert isinstance(found, TorchBackend)
    return found


MODELS = [
    ("resnet10t", {"input_px": 32}),
    ("resnet18", {"input_px": 32}),
    ("resnet50", {"input_px": 32, "layers": [2, 1, 1, 1]}),
    ("timm/test_efficientnet", {}),
    ("vit_tiny_patch16", {"input_px": 64, "depth": 2}),
    ("timm/test_vit", {}),
]


@pytest.mark.parametrize(("name", "arguments"), MODELS, ids=[name for name, _ in MODELS])
def test_the_rewritten_network_computes_what_the_encoder_does(
    name: str, arguments: dict[str, object]
) -> None:
    encoder = build(name, **arguments)
    batch = images_for(encoder)
    before = encoder.weights_sha256()
    backend = open_torch(encoder)
    assert backend.is_rewritten
    found = backend(batch)
    assert (backend.name, backend.precision) == ("torch", "fp32")
    assert found.dtype == np.float32 and found.shape == (7, encoder.embed_dim)
    assert error(found, directly(encoder, batch)) < 2e-5
    assert encoder.weights_sha256() == before
    assert (backend(batch) == found).all()


def test_every_convolution_of_a_resnet_is_packed() -> None:
    encoder = build("resnet50", input_px=32, layers=[2, 1, 1, 1])
    network = network_of(capture(encoder, 2))
    assert _fusing.pack_convolutions(network) == 1 + 5 * 3 + 4
    left = {str(node.target) for node in network.graph.nodes if node.op == "call_function"}
    assert not {name for name in left if "batch_norm" in name or "relu" in name or "conv2d" in name}
    assert not {name for name in left if "aten.add" in name}


def test_the_last_block_is_computed_for_the_class_token_alone() -> None:
    encoder = build("vit_tiny_patch16", input_px=64, depth=2)
    network = network_of(capture(encoder, 3))
    seen: list[int] = []

    class Rows(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):  # type: ignore[no-untyped-def]
            if target is torch.ops.aten.linear.default:
                seen.append(args[0].shape[1])
            return super().call_function(target, args, kwargs)

    assert compute_class_token_alone(network)
    batch = images_for(encoder, 3)
    with torch.no_grad():
        found = Rows(network).run(torch.from_numpy(batch))
    found = found[0] if isinstance(found, tuple) else found
    assert seen == [17, 17, 17, 17, 17, 1, 1, 1]
    assert error(found.numpy(), directly(encoder, batch)) < 1e-5


class Shared(nn.Module):
    """Shortcuts that are read again after their addition, and additions in place."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first, self.second = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.norm(self.stem(images)))
        summed = torch.relu(self.first(stem) + stem)
        again = self.second(summed)
        again += stem
        direct = self.second(stem) + stem
        stem += again
        return (stem * direct + summed).mean((2, 3))


def test_a_shortcut_that_is_read_again_is_not_overwritten() -> None:
    torch.manual_seed(0)
    card = EncoderCard(name="shared", architecture="shared", input_px=16)
    encoder = awake(Encoder(Shared(), card))
    backend = open_torch(encoder)
    assert backend.is_rewritten
    batch = images_for(encoder)
    assert error(backend(batch), directly(encoder, batch)) < 1e-5


def test_a_normalisation_that_uses_the_batch_stays_what_it_is() -> None:
    card = EncoderCard(name="batch", architecture="batch", input_px=16)
    model = Shared()
    model.norm = nn.BatchNorm2d(8, track_running_stats=False)
    encoder = Encoder(model, card).eval()
    batch = images_for(encoder, 2)
    assert error(open_torch(encoder, batch_size=2)(batch), directly(encoder, batch)) < 1e-5


class Deciding(nn.Module):
    """Depends on the values of its input, which PyTorch cannot record."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.conv(images).mean((2, 3))
        return -found if found.sum() > 0 else found


def test_what_cannot_be_recorded_is_computed_as_it_is() -> None:
    encoder = Encoder(Deciding(), EncoderCard(name="d", architecture="d", input_px=8)).eval()
    backend = open_torch(encoder, batch_size=4)
    assert not backend.is_rewritten
    batch = images_for(encoder, 4)
    assert error(backend(batch), directly(encoder, batch)) < 1e-5


def test_a_rewritten_network_that_computes_something_else_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(network: torch.fx.GraphModule) -> int:
        with torch.no_grad():
            (result,) = (node for node in network.graph.nodes if node.op == "output")
            wrong = result.all_input_nodes[0]
            with network.graph.inserting_before(result):
                doubled = network.graph.call_function(torch.add, (wrong, 0.01))
            result.replace_input_with(wrong, doubled)
        network.recompile()
        return 1

    monkeypatch.setattr(_fusing, "pack_convolutions", spoil)
    encoder = build("resnet10t", input_px=32)
    backend = open_torch(encoder)
    assert not backend.is_rewritten
    batch = images_for(encoder)
    assert error(backend(batch), directly(encoder, batch)) < 1e-5


def test_few_images_are_not_worth_rewriting() -> None:
    encoder = build("resnet10t", input_px=32)
    backend = open_torch(encoder, images=20)
    assert not backend.is_rewritten and open_torch(encoder, images=2000).is_rewritten
    batch = images_for(encoder)
    assert error(backend(batch), directly(encoder, batch)) < 1e-5


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_and_short_batches_have_no_effect(batch_size: int) -> None:
    encoder = build("resnet10t", input_px=32)
    batch = images_for(encoder, 11)
    backend = open_torch(encoder, batch_size=batch_size)
    expected = directly(encoder, batch)
    for count in (1, 2, 11):
        assert error(backend(batch[:count]), expected[:count]) < 1e-5


def test_pixels_that_must_not_be_written_to_are_taken() -> None:
    encoder = build("resnet10t", input_px=32)
    batch = images_for(encoder, 8)[::2]
    batch.flags.writeable = False
    for images in (None, 1):
        backend = open_torch(encoder, images=images)
        assert error(backend(batch), directly(encoder, batch.copy())) < 1e-5


def test_an_encoder_in_training_mode_is_left_there() -> None:
    encoder = build("resnet10t", input_px=32).train()
    found = open_torch(encoder)(images_for(encoder))
    assert all(module.training for module in encoder.modules())
    assert error(found, directly(encoder.eval(), images_for(encoder))) < 1e-5


@pytest.mark.parametrize("name", ["resnet10t", "timm/test_vit"])
def test_bf16_is_named_and_close(name: str) -> None:
    encoder = build(name, input_px=32)
    backend = open_backend(
        encoder, backend="torch", precision="bf16", batch_size=4, device=CPU, images=None
    )
    assert backend.precision == "bf16"
    found, exact = backend(images_for(encoder)), directly(encoder, images_for(encoder))
    assert found.dtype == np.float32
    assert 1e-5 < error(found, exact) < 0.2


def test_encoders_without_a_network_are_computed() -> None:
    encoder = build_encoder("colour_histogram").eval()
    backend = open_torch(encoder)
    batch = images_for(encoder)
    assert (backend(batch) == directly(encoder, batch)).all()


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    "model", [pytest.param("resnet10t", marks=pytest.mark.slow), "timm/test_vit"]
)
def test_other_runtimes_give_the_numbers_of_pytorch(name: str, model: str) -> None:
    pytest.importorskip(PACKAGES[name])
    if name == "onnxruntime":
        pytest.importorskip("onnxscript")
    encoder = build(model, input_px=32)
    backend: Backend = open_backend(
        encoder, backend=name, precision="fp32", batch_size=4, device=CPU
    )
    assert (backend.name, backend.precision) == (name, "fp32")
    batch = images_for(encoder, 9)
    found = backend(batch)
    assert found.dtype == np.float32 and found.shape == (9, encoder.embed_dim)
    assert error(found, directly(encoder, batch)) < 1e-4
    assert (backend(batch[:4]) == found[:4]).all()
    kept = backend(batch[:4])
    backend(batch[4:8])
    assert (kept == found[:4]).all(), "a later batch overwrote an earlier result"


def without(package: str) -> Callable[..., ModuleType]:
    real = importlib.import_module

    def refuse(name: str, *rest: str | None) -> ModuleType:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    return refuse


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [("openvino", "openvino", "openvino"), ("onnxruntime", "onnxruntime", "onnx")],
)
def test_a_missing_package_names_the_extra(
    backend: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build("resnet10t", input_px=32)
    monkeypatch.setattr(importlib, "import_module", without(package))
    with pytest.raises(InputError, match=rf'pip install "eosin\[{extra}\]"'):
        open_backend(encoder, backend=backend, precision="fp32", batch_size=4, device=CPU)


def test_what_makes_no_sense_is_refused() -> None:
    encoder = build("resnet10t", input_px=32)

    def opened(backend: str, precision: str = "fp32", device: torch.device = CPU) -> Backend:
        return open_backend(
            encoder,
            backend=backend,
            precision=precision,  # pyright: ignore
            batch_size=4,
            device=device,
        )

    assert BACKENDS == ("auto", "torch", "onnxruntime", "openvino")
    with pytest.raises(UsageError, match="--backend tensorrt must be one of auto, torch"):
        opened("tensorrt")
    with pytest.raises(UsageError, match="--backend openvino computes on the CPU"):
        opened("openvino", device=torch.device("cuda", 0))
    with pytest.raises(UsageError, match="--backend onnxruntime computes in fp32"):
        opened("onnxruntime", precision="bf16")


@given(count=st.integers(1, 40), size=st.integers(1, 17), fills_up=st.booleans())
def test_pieces_lose_and_add_nothing(count: int, size: int, fills_up: bool) -> None:
    batch = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    sizes: list[int] = []

    def first_pixel(piece: np.ndarray) -> np.ndarray:
        sizes.append(len(piece))
        return piece[:, 0, 0].astype(np.float32)

    found = in_pieces(first_pixel, batch, size, fills_up=fills_up)
    assert (found[:, 0] == np.arange(count)).all()
    assert max(sizes) <= size and (not fills_up or set(sizes) == {size})


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is missing")
def test_openvino_does_not_report_to_its_makers() -> None:
    script = (
        "from eosin.embeddings._openvino_backend import _import_openvino\n"
        "_import_openvino()\n"
        "from openvino.tools.ovc import convert_impl, telemetry_utils\n"
        "print(convert_impl.tm.__name__, telemetry_utils.tm.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["openvino.tools.ovc.telemetry_stub"] * 2

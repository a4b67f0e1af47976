"""Encoders of timm and of the Hub: from a cache, from a server on this machine, never from afar."""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from eosin.errors import InputError, UsageError
from eosin.weights.hub import IMAGENET, fetch_model, is_hub_name, load_hub
from eosin.weights.load import load_encoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no token of whoever runs the tests."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return timm.create_model("test_vit").eval()


def files_of(model: nn.Module, tmp_path: Path, *, tag: str = "a1", **data: Any) -> dict[str, bytes]:
    """A repository as timm's `save_for_hf` writes it, with a classifier."""
    weights = tmp_path / "model.safetensors"
    save_file({key: value.clone() for key, value in model.state_dict().items()}, weights)
    config = {
        "architecture": "test_vit",
        "num_classes": 1000,
        "num_features": 64,
        "global_pool": "map",
        "pretrained_cfg": {
            "tag": tag,
            "input_size": [3, 160, 160],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 0.95,
            "mean": list(MEAN),
            "std": list(STD),
            "num_classes": 1000,
            "classifier": "head",
            "license": "apache-2.0",
            **data,
        },
    }
    return {"config.json": json.dumps(config).encode(), weights.name: weights.read_bytes()}


def keep(cache: Path, repo: str, files: dict[str, bytes], revision: str = "main") -> Path:
    """Puts files into the cache as the Hub's library does."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(COMMIT)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def without_head(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_vit.r160_in1k"])
def test_a_cached_model_of_timm_loads_without_a_network(
    name: str, cache: Path, vit: nn.Module, tmp_path: Path
) -> None:
    keep(cache, "timm/test_vit.r160_in1k", files_of(vit, tmp_path))
    encoder = load_encoder(name)
    images = torch.randn(2, 3, 160, 160)
    assert torch.allclose(encoder.embed(images), without_head(vit, images), atol=1e-6)
    assert encoder.name == name and not encoder.training
    assert encoder.mean == MEAN and encoder.std == STD
    assert encoder.input_px == 160 and encoder.interpolation == "bilinear"
    told = encoder.card.provenance
    assert told["repo"] == "timm/test_vit.r160_in1k" and told["revision"] == COMMIT
    assert told["licence"] == "apache-2.0" and len(told["file_sha256"]) == 64


@pytest.mark.usefixtures("no_network")
def test_another_repository_by_name_and_revision(
    cache: Path, vit: nn.Module, tmp_path: Path
) -> None:
    keep(cache, "someone/own", files_of(vit, tmp_path), revision="v2")
    assert load_encoder("hf-hub:someone/own@v2").name == "hf-hub:someone/own@v2"
    assert load_encoder(f"hf-hub:someone/own@{COMMIT}").embed_dim == vit.num_features
    with pytest.raises(InputError, match="not in the Hugging Face cache"):
        load_encoder("hf-hub:someone/own")


@pytest.mark.usefixtures("no_network")
def test_a_repository_with_a_pickle_alone(cache: Path, vit: nn.Module, tmp_path: Path) -> None:
    files = files_of(vit, tmp_path)
    torch.save(vit.state_dict(), tmp_path / "pytorch_model.bin")
    del files["model.safetensors"]
    snapshot = keep(cache, "someone/old", files)
    (snapshot / "pytorch_model.bin").write_bytes((tmp_path / "pytorch_model.bin").read_bytes())
    encoder = load_encoder("hf-hub:someone/old")
    images = torch.randn(1, 3, 160, 160)
    assert torch.allclose(encoder.embed(images), without_head(vit, images), atol=1e-6)
    assert encoder.card.provenance["file"] == "pytorch_model.bin"
    torch.save({"a": torch.zeros(1)}, snapshot / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin does not fit") as caught:
        load_encoder("hf-hub:someone/old")
    assert str(snapshot) in str(caught.value)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("timm/test_resnet", "timm/test_resnet.r160_in1k"),
        ("hf-hub:someone/own", "someone/own"),
        ("resnet50.imagenet", "timm/resnet50.tv_in1k"),
        ("uni2_h", "MahmoodLab/UNI2-h"),
        ("hf-hub:mahmoodlab/uni", "MahmoodLab/UNI"),
    ],
)
def test_what_is_not_cached_names_the_command(name: str, repo: str) -> None:
    with pytest.raises(InputError) as caught:
        load_encoder(name)
    message = str(caught.value)
    assert f"{repo} is not in the Hugging Face cache" in message
    assert f"eosin weights get {name}" in message
    assert f'load_encoder("{name}", download=True)' in message
    assert ("Accept its terms at https://huggingface.co/" in message) == ("ahmood" in repo)


@pytest.mark.usefixtures("no_network")
def test_names_that_timm_does_not_have(cache: Path) -> None:
    with pytest.raises(InputError, match="no architecture 'resnet19'"):
        load_encoder("timm/resnet19")
    with pytest.raises(InputError, match=r"no weights of this name. Tags: test_vit\.r160_in1k"):
        load_encoder("timm/test_vit.r16")
    with pytest.raises(InputError, match="It has none"):
        load_encoder("timm/vit_giant_patch14_224")
    with pytest.raises(UsageError, match="OWNER/NAME"):
        load_encoder("hf-hub:a/b/c")
    with pytest.raises(UsageError, match="no 'resnet50' to fetch"):
        fetch_model("resnet50")
    assert not cache.exists()


@pytest.mark.usefixtures("no_network")
def test_damaged_and_foreign_repositories_are_named(
    cache: Path, vit: nn.Module, tmp_path: Path
) -> None:
    files = files_of(vit, tmp_path)
    snapshot = keep(cache, "someone/own", files)
    (snapshot / "model.safetensors").write_bytes(files["model.safetensors"][:-5])
    with pytest.raises(InputError, match="damaged"):
        load_encoder("hf-hub:someone/own")
    (snapshot / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="not the config of a timm model"):
        load_encoder("hf-hub:someone/own")


@pytest.mark.usefixtures("no_network")
def test_a_copy_of_released_weights_tells_which_statistics_it_uses(
    cache: Path, vit: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(cache, "1aurent/vit_small_patch16_224.lunit_dino", files_of(vit, tmp_path))
    load_encoder("hf-hub:1aurent/vit_small_patch16_224.lunit_dino")
    told = capsys.readouterr().err
    assert told.count("0.703") == 1 and "vit_small_patch16.lunit_dino" in told


def test_baselines_are_weights_that_timm_has() -> None:
    for name, row in IMAGENET.items():
        assert is_hub_name(name) and timm.get_pretrained_cfg(row.timm_name) is not None
        assert row.timm_name in timm.list_pretrained()


Answer = Callable[[str, str], tuple[int, dict[str, str], bytes]]


class FakeHub:
    """A server that answers as the Hub does for files of repositories."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                owner, name, _, _, file = [*self.path.strip("/").split("/", 4), *[""] * 5][:5]
                repo = f"{owner}/{name}"
                status, code = hub.refusals.get(repo, (404, "RepoNotFound"))
                content = hub.repos.get(repo, {}).get(file)
                if repo in hub.repos and repo not in hub.refusals:
                    status, code = (200, "") if content is not None else (404, "EntryNotFound")
                body = content if content is not None and status == 200 else b""
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[FakeHub]:
    fake = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between its attempts
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    thread = threading.Thread(target=fake.server.serve_forever, daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def test_a_download_is_asked_for_and_then_kept(
    hub: FakeHub, cache: Path, vit: nn.Module, tmp_path: Path
) -> None:
    hub.repos["timm/test_vit.r160_in1k"] = files_of(vit, tmp_path)
    with pytest.raises(InputError, match="not in the Hugging Face cache"):
        load_hub("timm/test_vit")
    assert not hub.asked
    encoder = load_encoder("timm/test_vit", download=True)
    assert encoder.card.provenance["revision"] == COMMIT and hub.asked
    hub.asked.clear()
    assert load_encoder("timm/test_vit").weights_sha256() == encoder.weights_sha256()
    assert not hub.asked
    assert fetch_model("timm/test_vit") == (
        cache / "models--timm--test_vit.r160_in1k" / "snapshots" / COMMIT
    )


def test_a_pickle_is_taken_where_there_is_nothing_safer(
    hub: FakeHub, vit: nn.Module, tmp_path: Path
) -> None:
    files = files_of(vit, tmp_path)
    torch.save(vit.state_dict(), tmp_path / "pytorch_model.bin")
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    del files["model.safetensors"]
    hub.repos["someone/old"] = files
    encoder = load_encoder("hf-hub:someone/old", download=True)
    assert encoder.card.provenance["file"] == "pytorch_model.bin"
    del files["pytorch_model.bin"]
    hub.repos["someone/none"] = files
    with pytest.raises(InputError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        fetch_model("hf-hub:someone/none")


def test_gated_repositories_give_the_exact_steps(hub: FakeHub) -> None:
    hub.refusals["paige-ai/Virchow2"] = (403, "GatedRepo")
    with pytest.raises(InputError) as caught:
        load_encoder("virchow2", download=True)
    message = str(caught.value)
    assert "1. Accept its terms at https://huggingface.co/paige-ai/Virchow2" in message
    assert "hf auth login" in message and "HF_TOKEN" in message
    assert message.endswith("eosin weights get virchow2")


def test_repositories_and_revisions_that_do_not_exist(hub: FakeHub) -> None:
    with pytest.raises(InputError, match=r"no https://huggingface\.co/a/b, or it is private"):
        fetch_model("hf-hub:a/b")
    hub.refusals["a/b"] = (404, "RevisionNotFound")
    with pytest.raises(InputError, match="no revision 'v9'"):
        fetch_model("hf-hub:a/b@v9")
    hub.refusals["a/b"] = (500, "")
    with pytest.raises(InputError, match="a/b"):
        fetch_model("hf-hub:a/b")


def test_a_hub_that_cannot_be_reached_is_said(hub: FakeHub) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(InputError, match=r"cannot be reached|does not give"):
        fetch_model("hf-hub:a/b")

"""Uploading: only when asked for, only what was shown, only what the licence allows."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from eosin.encoders import build_encoder
from eosin.errors import InputError, UsageError
from eosin.weights.export import export_encoder
from eosin.weights.licences import LUNIT
from eosin.weights.push import Config, plan_upload, push

RUN = {"name": "mine", "method": "swav", "config": {"init": ""}}
_SITE = "https://huggingface.co/me/x"
RELEASED = {"name": "resnet50.lunit_bt", "licence": LUNIT.short}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "e"
    export_encoder(build_encoder("timm/test_resnet", seed=0), folder, RUN)
    (folder / "README.md").write_text("---\nlibrary_name: timm\n---\n# mine\n")
    return folder


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "e"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def tell(folder: Path, **provenance: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["eosin"] = {"name": "mine", "pooling": "mean", **provenance}
    (folder / "config.json").write_text(json.dumps(config))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload of small files takes."""

    files: dict[str, bytes]
    paths: list[str]
    refuse: int
    private: bool

    def do_GET(self) -> None:
        self.paths.append(f"GET {self.path}")
        self.answer({"id": "me/x", "private": self.private, "siblings": [], "sha": "0" * 40})

    def do_POST(self) -> None:
        self.paths.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refuse:
            self.answer({"error": "no write access here"}, self.refuse)
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = [{"uploadMode": "regular", "shouldIgnore": False, **each} for each in asked]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    type(self).files[value["path"]] = base64.b64decode(value["content"])
            self.answer({"commitUrl": f"{_SITE}/commit/{'0' * 40}", "commitOid": 40 * "0"})
        else:
            self.answer({"url": _SITE, "warnings": [], "errors": []})

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files, Hub.paths, Hub.refuse, Hub.private = {}, [], 0, False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.hf_api, "ENDPOINT", endpoint, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_without_yes_nothing_reaches_the_network(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    upload = push(Config(folder=export, repo="me/x"))
    assert upload.url == "" and not upload.facts()["uploaded"]
    shown = str(upload)
    assert "https://huggingface.co/me/x (public: everybody" in shown
    assert "model.safetensors" in shown and "config.json" in shown and "together" in shown
    assert "licence: none stated" in shown
    assert "(private)" in str(push(Config(folder=export, repo="me/x", private=True)))


def test_what_was_shown_is_what_is_sent(export: Path, hub: type[Hub]) -> None:
    (export / "notes.txt").write_text("secret")
    (export / ".env").write_text("secret")
    upload = push(Config(folder=export, repo="me/x", yes=True))
    assert upload.url == f"{huggingface_hub.constants.ENDPOINT}/me/x"
    assert (
        hub.files.keys()
        == upload.files.keys()
        == {"README.md", "config.json"} | {"model.safetensors"}
    )
    assert all(content == (export / name).read_bytes() for name, content in hub.files.items())


def test_a_public_repository_is_no_private_one(export: Path, hub: type[Hub]) -> None:
    with pytest.raises(InputError, match="exists and is public"):
        push(Config(folder=export, repo="me/x", yes=True, private=True))
    assert not hub.files
    hub.private = True
    push(Config(folder=export, repo="me/x", yes=True, private=True))
    assert hub.files


@pytest.mark.parametrize("status", [401, 403])
def test_what_the_hub_says_is_passed_on(status: int, export: Path, hub: type[Hub]) -> None:
    hub.refuse = status
    with pytest.raises(InputError, match=r"The Hub did not take me/x: .*tries it again") as caught:
        push(Config(folder=export, repo="me/x", yes=True))
    assert str(status) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (RELEASED, "names Lunit Inc."),
        ({**RUN, "init": {"name": "a", "provenance": {"licence": "cc-by-nc-4.0"}}}, "licence of a"),
        ({"source": "timm folder x"}, "not known to Eosin"),
        ({**RUN, "config": {"init": "resnet50.lunit_bt"}}, "non-commercial"),
    ],
)
def test_a_licence_with_conditions_asks_for_a_statement(
    told: dict[str, Any], said: str, export: Path, hub: type[Hub]
) -> None:
    tell(export, **told)
    assert said in str(push(Config(folder=export, repo="me/x")))
    with pytest.raises(UsageError, match="--licence-allows-sharing") as caught:
        push(Config(folder=export, repo="me/x", yes=True))
    assert said in str(caught.value) and not hub.paths
    push(Config(folder=export, repo="me/x", yes=True, licence_allows_sharing=True))
    assert hub.files


def test_a_permissive_licence_needs_no_statement(export: Path) -> None:
    tell(export, licence="Apache-2.0")
    assert not plan_upload(Config(folder=export, repo="me/x")).needs_statement


def test_no_token_names_the_steps(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match=r"settings/tokens.*hf auth login.*HF_TOKEN"):
        push(Config(folder=export, repo="me/x", yes=True))


def test_no_network_is_one_sentence(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        with pytest.raises(InputError, match="The Hub did not take me/x: ") as caught:
            push(Config(folder=export, repo="me/x", yes=True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "repo", ["x", "a/b/c", "/x", "a b/x", "me/", "https://huggingface.co/me/x"]
)
def test_repositories_are_owner_and_name(repo: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be OWNER/NAME"):
        Config(folder=tmp_path, repo=repo)


def test_half_exports_are_refused(export: Path) -> None:
    config = Config(folder=export, repo="me/x")
    content = (export / "model.safetensors").read_bytes()
    (export / "model.safetensors").write_bytes(content[:100])
    with pytest.raises(InputError, match="is damaged"):
        plan_upload(config)
    for text in ("{}", "[]", "{", '{"eosin": 1}'):
        (export / "config.json").write_text(text)
        with pytest.raises(InputError, match="not that of an export of Eosin"):
            plan_upload(config)
    (export / "README.md").unlink()
    with pytest.raises(InputError, match=r"lacks README\.md; make a folder to upload with"):
        plan_upload(config)

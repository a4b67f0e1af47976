"""A local https server that hands out one file, and can be told to misbehave."""

import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass(kw_only=True)
class Release:
    """What the server has, does wrong, and was asked.

    `faults` are used up, one a request: `None` for a right answer, a number of bytes after which
    the connection is cut, a status, a place that it redirects to, or one of `no-range`,
    `wrong-range`, `old-range`, `no-length` and `too-long`.
    """

    content: bytes
    etag: str | None = '"v1"'
    faults: list[Any] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    host: str = ""
    certificate: Path = Path()

    def context(self) -> ssl.SSLContext:
        """Trusts this server alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(folder: Path) -> Path:
    """Writes a self-signed certificate for 127.0.0.1 and its key into one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make a certificate for the local server")
    path = folder / "server.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["openssl", "req", "-x509", "-days", "2", *key, *names, "-keyout", "-", "-out", "-"]
    path.write_bytes(subprocess.run(made, check=True, capture_output=True).stdout)
    return path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    release: Release

    def do_GET(self) -> None:
        release = self.release
        release.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        fault = release.faults.pop(0) if release.faults else None
        if isinstance(fault, str) and "://" in fault:
            return self._answer(302, b"", {"Location": fault})
        if isinstance(fault, int) and fault in range(400, 600):
            return self._answer(fault, b"no", {})
        self._send_file(fault)

    def _send_file(self, fault: Any) -> None:
        content, start = self.release.content, self._start(fault)
        headers = {"ETag": self.release.etag} if self.release.etag else {}
        length = len(content) + (7 if fault == "too-long" else 0)
        if start and start >= length:
            return self._answer(416, b"", {"Content-Range": f"bytes */{length}"})
        if start:
            wrong = 1 if fault == "wrong-range" else 0
            headers["Content-Range"] = f"bytes {start - wrong}-{length - 1}/{length}"
        if fault == "no-length":
            headers["Content-Length"] = ""
        if fault == "too-long":
            headers["Content-Length"] = str(length - start)
        body = content[start:]
        self._answer(
            206 if start else 200, body, headers, fault if isinstance(fault, int) else None
        )

    def _start(self, fault: Any) -> int:
        """Where the answer begins: at 0 unless a range of this very version is asked for."""
        asked = self.headers.get("Range", "bytes=0-")
        is_same = self.headers.get("If-Range") == self.release.etag or fault == "old-range"
        return 0 if fault == "no-range" or not is_same else int(asked[6:-1])

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])

    def log_message(self, *_: Any) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is part of the tests."""


class _Tunnel(BaseHTTPRequestHandler):
    """A proxy: connects to whatever is asked for and passes bytes both ways."""

    tunnels: list[str]

    def do_CONNECT(self) -> None:
        self.tunnels.append(self.path)
        host, port = self.path.split(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            pairs = {self.connection: other, other: self.connection}
            while True:
                for ready in select.select(list(pairs), [], [], 5)[0]:
                    block = ready.recv(1 << 16)
                    if not block:
                        return
                    pairs[ready].sendall(block)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def tunnelling() -> Generator[tuple[str, list[str]]]:
    """Runs a proxy; gives its address and, later, what was asked for."""
    tunnels: list[str] = []
    server = _QuietServer(("127.0.0.1", 0), type("Tunnel", (_Tunnel,), {"tunnels": tunnels}))
    with _running(server):
        yield f"http://127.0.0.1:{server.server_port}", tunnels


@contextlib.contextmanager
def serving(certificate: Path, content: bytes) -> Generator[Release]:
    """Serves `content` under every path of `release.url` until the block ends."""
    release = Release(content=content, certificate=certificate)
    handler = type("Handler", (_Handler,), {"release": release})
    server = _QuietServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    release.host = f"127.0.0.1:{server.server_port}"
    release.url = f"https://{release.host}"
    with _running(server):
        yield release


@contextlib.contextmanager
def _running(server: ThreadingHTTPServer) -> Generator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

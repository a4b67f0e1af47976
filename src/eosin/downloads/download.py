"""One file by https: from allowed hosts, resumed, with retries, whole or not at all."""

import contextlib
import errno
import http.client
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eosin.downloads.partial_file import PartialFile, held
from eosin.errors import InputError
from eosin.progress import Bar

_BLOCK_BYTES = 1 << 20
_MB = 10**6
_LATER_MAY_WORK = (408, 425, 429, 500, 502, 503, 504)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_NETWORK = (errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTUNREACH)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download tries.

    Attributes:
        attempts: how often a connection is made at most.
        timeout_s: how long the server may say nothing.
        pause_s: how long to wait before the second attempt; doubled before each further one.
    """

    attempts: int = 5
    timeout_s: float = 30.0
    pause_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a file comes from, and who may be asked for it.

    Attributes:
        url: its address, by https.
        hosts: who may be asked, also by way of redirects; with a port unless it is 443.
        size_bytes: its length where it is known before.
        context: how servers are trusted; by default as the system does (`SSL_CERT_FILE`).
        patience: retries and timeouts.
    """

    url: str
    hosts: Collection[str]
    size_bytes: int | None = None
    context: ssl.SSLContext | None = None
    patience: Patience = field(default_factory=Patience)


class _TryAgain(Exception):
    """A fault that may be gone at the next attempt."""


def download(
    source: Source, path: Path, *, verify: Callable[[Path], None], shows_progress: bool = True
) -> bool:
    """Downloads a file, unless it is there already.

    What has come lies in `<path>.part`, from which a later call goes on if the server still has
    the same file (by its ETag or date); the file gets its name when it is complete and verified.
    Of several processes one downloads and the others wait.

    Args:
        source: where it comes from.
        path: where it goes.
        verify: raises `InputError` for a file that is not the right one, which is then removed.
        shows_progress: whether a bar with rate and time left is shown.

    Returns:
        Whether it was downloaded now.

    Raises:
        InputError: the address, a redirect, the server, the disk or the file is not right.
    """
    _check_address(source.url, source.hosts)
    with _explaining_the_disk(path.parent), held(path) as part:
        if path.is_file():
            return False
        _fetch_with_retries(source, part, shows_progress)
        part.sync()
        try:
            verify(part.path)
        except InputError:
            part.discard()
            raise
        part.become(path)
    return True


def _check_address(url: str, hosts: Collection[str]) -> None:
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme != "https":
        raise InputError(f"{place} is not https; downloads are by https only.")
    if parts.netloc.lower().removesuffix(":443") not in hosts:
        raise InputError(f"{place} is none of the hosts that are allowed: {', '.join(hosts)}.")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects by https to allowed hosts alone."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = hosts

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Checks where a redirect leads before it is followed."""
        try:
            _check_address(newurl, self._hosts)
        except InputError as error:
            fp.close()
            raise InputError(
                f"{urlsplit(req.full_url).netloc} redirects to a place that is refused: {error}"
            ) from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(source: Source) -> urllib.request.OpenerDirector:
    """What opens https alone: no plain http, no ftp, no local files; proxies as usual."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=source.context or ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _CheckedRedirects(source.hosts),
    ):
        opener.add_handler(handler)
    return opener


def _fetch_with_retries(source: Source, part: PartialFile, shows_progress: bool) -> None:
    opener = _opener(source)
    pause_s, attempts = source.patience.pause_s, source.patience.attempts
    for attempt in range(1, attempts + 1):
        try:
            return _fetch(source, part, opener, shows_progress)
        except _TryAgain as fault:
            if attempt == attempts:
                kept = f" {part.size:,} bytes are kept in {part.path}." if part.size else ""
                raise InputError(
                    f"{source.url} could not be downloaded in {attempts} attempts: {fault}.{kept} "
                    "Try again later; a proxy is taken from https_proxy."
                ) from None
            if shows_progress:
                print(f"{fault}; attempt {attempt + 1} of {attempts} follows.", file=sys.stderr)
        time.sleep(pause_s)
        pause_s *= 2


def _fetch(
    source: Source,
    part: PartialFile,
    opener: urllib.request.OpenerDirector,
    shows_progress: bool,
) -> None:
    """Makes one connection and takes what it gives, after what is there already."""
    headers = {"User-Agent": "eosin", "Accept-Encoding": "identity"}
    if part.size and part.version:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version}
    request = urllib.request.Request(source.url, headers=headers)
    with _explaining_the_connection(source.url, part):
        try:
            response = opener.open(request, timeout=source.patience.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{part.size}":
                error.close()
                return  # there is nothing beyond what has come
            raise
        with response:
            total = _prepare(source, part, response)
            free = shutil.disk_usage(part.path.parent).free
            if total - part.size > free:
                raise InputError(
                    f"{part.path.parent} has no room: {total - part.size:,} bytes are to come, "
                    f"{free:,} are free."
                )
            _copy(response, part, total, shows_progress)
    if part.size < total:
        raise _TryAgain(f"the connection ended after {part.size:,} of {total:,} bytes")


def _prepare(source: Source, part: PartialFile, response: Any) -> int:
    """Makes the partial file fit the answer, and gives the length of the whole file."""
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        raise InputError(
            f"{source.url}: the server does not say how long the file is, so that a part could "
            "pass for the whole; it was not taken."
        )
    version = _version(response)
    total = part.size + int(length)
    if response.status != 206:
        # The whole file: the first time, of another version, or from a server without ranges.
        total = int(length)
        part.restart(version)
    elif (
        response.headers.get("Content-Range") != f"bytes {part.size}-{total - 1}/{total}"
        or version != part.version
    ):
        part.restart("")
        raise _TryAgain("the server sent another part of the file than was asked for")
    if source.size_bytes not in (None, total):
        part.discard()
        raise InputError(f"{source.url} has {total:,} bytes, expected are {source.size_bytes:,}.")
    return total


def _version(response: Any) -> str:
    """What names this version of the file to the byte; a weak ETag does not."""
    tag = response.headers.get("ETag") or ""
    return tag if tag.startswith('"') else response.headers.get("Last-Modified") or ""


def _copy(response: Any, part: PartialFile, total: int, shows_progress: bool) -> None:
    shown = part.size // _MB
    with Bar(
        part.path.stem,
        total=max(total // _MB, 1),
        unit="MB",
        done=shown,
        is_hidden=not shows_progress,
    ) as bar:
        while block := response.read(_BLOCK_BYTES):
            part.append(block)
            bar.advance(part.size // _MB - shown)
            shown = part.size // _MB


@contextlib.contextmanager
def _explaining_the_connection(url: str, part: PartialFile) -> Generator[None]:
    """Tells faults that may pass from those that will not."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {error.reason}"
        if error.code == 416:  # more is there than the file has: it is another one
            part.restart("")
            raise _TryAgain(answer) from None
        if error.code in _LATER_MAY_WORK:
            raise _TryAgain(answer) from None
        raise InputError(f"{url}: {answer}.") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{url}: the server's certificate is not trusted ({error.reason.verify_message}); "
                "where a proxy has one of its own, name its file in SSL_CERT_FILE."
            ) from None
        raise _TryAgain(str(error.reason)) from None
    except (http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise _TryAgain(str(error) or type(error).__name__) from None
    except OSError as error:
        if error.errno not in _NO_NETWORK:
            raise
        raise _TryAgain(str(error)) from None


@contextlib.contextmanager
def _explaining_the_disk(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(
            f"The disk of {folder} is full. Make room; what has come is kept, and the same command "
            "goes on from there."
        ) from None

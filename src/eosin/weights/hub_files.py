"""Files of the Hugging Face Hub: from the cache of this machine, or downloaded on request.

Nothing is asked of the network unless a download was asked for. Where the cache lies and which
token is used is for the Hub's own library to say (`HF_HOME`, `HF_TOKEN`, `hf auth login`).
"""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from eosin.errors import InputError, UsageError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What repositories call their weights, the safe one first."""


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A repository on the Hub and what a user calls it.

    Attributes:
        name: what the user asked for, which messages repeat.
        repo: `owner/name`.
        revision: a branch, tag or commit; the main branch where it is None.
        is_dataset: whether it is one of a data set.
        is_gated: whether its terms are known to need acceptance.
    """

    name: str
    repo: str
    revision: str | None = None
    is_dataset: bool = False
    is_gated: bool = False

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://huggingface.co/{'datasets/' if self.is_dataset else ''}{self.repo}"


def fetch_first(repo: Repo, files: Sequence[str], *, download: bool) -> Path:
    """Gives the path of the first of several files that a repository has.

    Args:
        repo: where they may be.
        files: their names there, the preferred one first.
        download: whether the network may be asked; otherwise only the cache is looked into.

    Raises:
        InputError: none is there; or it cannot be had, and the message says what to do.
    """
    for file in files:
        path = _fetch(repo, file, download=download)
        if path is not None:
            return path
    if download:
        raise InputError(f"{repo.name}: {repo.url} has no {' or '.join(files)}.")
    first = f" Accept its terms at {repo.url} first." if repo.is_gated else ""
    raise InputError(
        f"{repo.name}: {repo.repo} is not in the Hugging Face cache of this machine. Download it "
        f'with: eosin weights get {repo.name}, or load_encoder("{repo.name}", download=True).'
        + first
    )


def commit_of(path: Path) -> str:
    """Gives the commit that a file of the cache is of."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else "unknown"


def _fetch(repo: Repo, file: str, *, download: bool) -> Path | None:
    with _explained(repo, file), _without_log_lines():
        try:
            path = hf_hub_download(
                repo.repo,
                file,
                revision=repo.revision,
                repo_type="dataset" if repo.is_dataset else "model",
                local_files_only=not download,
            )
        except LocalEntryNotFoundError as error:
            if not download:
                return None
            cause = error.__cause__ or error
            raise InputError(
                f"{repo.name}: {repo.url} cannot be reached ({type(cause).__name__}). Check the "
                "network, HF_HUB_OFFLINE and HF_ENDPOINT; or copy the Hugging Face cache of a "
                "machine that has it."
            ) from None
        except EntryNotFoundError:
            return None
        return Path(path)


@contextmanager
def _explained(repo: Repo, file: str) -> Generator[None]:
    try:
        yield
    except InputError:
        raise
    except GatedRepoError:
        raise InputError(
            f"{repo.name}: {repo.repo} is gated. 1. Accept its terms at {repo.url} with your "
            "Hugging Face account, and wait for approval where it is asked for. 2. Type: hf auth "
            "login, or set HF_TOKEN to a token that may read it. 3. Type: eosin weights get "
            f"{repo.name}"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{repo.name}: {repo.url} has no revision {repo.revision!r}.") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{repo.name}: there is no {repo.url}, or it is private. Check the name; for a private "
            "one type: hf auth login"
        ) from None
    except HFValidationError:
        raise UsageError(
            f"{repo.name}: {repo.repo!r} is not the name of a repository, which is OWNER/NAME."
        ) from None
    except HfHubHTTPError as error:
        what = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{repo.name}: {repo.url} does not give {file}: {what}.") from None
    except OSError as error:
        raise InputError(f"{repo.name}: {file} cannot be kept: {error}.") from None
    except Exception as error:  # what breaks a transfer is named by the library's own library
        raise InputError(
            f"{repo.name}: {file} did not arrive: {type(error).__name__}: {error}. Type it again."
        ) from None


@contextmanager
def _without_log_lines() -> Generator[None]:
    """What the Hub's library logs, our messages say."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

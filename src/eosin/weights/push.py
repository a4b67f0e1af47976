"""Uploading an exported encoder to the Hugging Face Hub, which only ever happens when asked for."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import huggingface_hub
import tyro
from safetensors import SafetensorError, safe_open

from eosin.errors import InputError, UsageError
from eosin.weights.export import CARD, CONFIG, ONNX, ONNX_DATA, WEIGHTS, size_lines
from eosin.weights.origins import Inherited, ancestors, inherited_licences

_REPO = re.compile(r"[\w.-]+/[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which export to upload, and where to."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that `eosin weights export` wrote."""
    repo: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository on the Hub; it is created if it does not exist."""
    private: bool = False
    """Only you and your organisation can see it."""
    yes: bool = False
    """Uploads; without it, only what would be uploaded is shown."""
    licence_allows_sharing: bool = False
    """You state that the licence of the weights lets you share them in this way."""

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise UsageError(f"--repo is {self.repo!r}; it must be OWNER/NAME.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """What is, or would be, uploaded.

    Attributes:
        folder: where it lies.
        repo: where it goes.
        files: bytes of each file.
        licences: of the weights.
        licence_known: whether nothing is missing in them.
        private: whether only the owner sees it.
        url: of the repository once it is uploaded; empty before.
    """

    folder: str
    repo: str
    files: Mapping[str, int]
    licences: tuple[Inherited, ...]
    licence_known: bool
    private: bool
    url: str = ""

    @property
    def needs_statement(self) -> bool:
        """Whether the licences do not let everybody share the weights for every use."""
        return not self.licence_known or not all(each.shares_freely for each in self.licences)

    def facts(self) -> dict[str, Any]:
        """For machines."""
        return {
            "folder": self.folder,
            "repo": self.repo,
            "files": dict(self.files),
            "licences": [each.text for each in self.licences],
            "private": self.private,
            "needs_licence_statement": self.needs_statement,
            "uploaded": bool(self.url),
            "url": self.url,
        }

    def __str__(self) -> str:
        total = sum(self.files.values())
        seen_by = "private" if self.private else "public: everybody can see and download it"
        return "\n".join(
            [
                f"{self.folder} -> {_address(self.repo)} ({seen_by})",
                *size_lines({**self.files, "together": total}),
                *self.licence_lines(),
            ]
        )

    def licence_lines(self) -> list[str]:
        """Says what is known of the licences of the weights."""
        lines = [
            line
            for each in self.licences
            for line in (
                f"licence of {each.encoder}: {each.text}"
                + (f" ({each.link})" if each.link else ""),
                *(f"  - {term}" for term in each.terms),
            )
        ]
        if not self.licence_known:
            lines.append("licence: not known to Eosin; find out whether you may share the weights")
        return lines or [f"licence: none stated; add `license:` to the metadata of {CARD}"]


def plan_upload(config: Config) -> Upload:
    """Says what would be uploaded; nothing reaches the network.

    Raises:
        InputError: the folder is no whole export.
    """
    content = _read(config.folder)
    own = content["eosin"]
    name = str(own.get("name", config.folder.name))
    licences = tuple(inherited_licences(name, own))
    paths = [config.folder / each for each in (CARD, CONFIG, WEIGHTS, ONNX, ONNX_DATA)]
    paths = [path for path in paths if path.is_file()]
    return Upload(
        folder=str(config.folder),
        repo=config.repo,
        files={path.name: path.stat().st_size for path in paths},
        licences=licences,
        licence_known=bool(licences) or ancestors(name, own)[-1].is_own,
        private=config.private,
    )


def push(config: Config) -> Upload:
    """Uploads an export: creates the repository if it does not exist, and adds one commit.

    Without `yes` it only says what it would upload, and nothing reaches the network.

    Raises:
        UsageError: the licence of the weights asks for `licence_allows_sharing`.
        InputError: the folder is no whole export, no token is there, or the Hub refuses.
    """
    upload = plan_upload(config)
    if not config.yes:
        return upload
    if upload.needs_statement and not config.licence_allows_sharing:
        raise UsageError(
            "\n".join(
                [
                    f"nothing was uploaded, since not everybody may share {config.folder}:",
                    *upload.licence_lines(),
                    "If you may share the weights in this way, say so with "
                    "--licence-allows-sharing.",
                ]
            )
        )
    if huggingface_hub.get_token() is None:
        raise InputError(
            "There is no Hugging Face token here. Make one that may write at "
            "https://huggingface.co/settings/tokens, type `hf auth login` (or set HF_TOKEN), and "
            "give the same command again."
        )
    return replace(upload, url=_send(config, upload))


def _send(config: Config, upload: Upload) -> str:
    api = huggingface_hub.HfApi(library_name="eosin")
    try:
        url = api.create_repo(config.repo, private=config.private, exist_ok=True)
        if config.private and not api.model_info(config.repo).private:
            raise InputError(
                f"{_address(config.repo)} exists and is public, and --private was "
                "given; make it private there, or choose another --repo. Nothing was uploaded."
            )
        api.upload_folder(
            repo_id=config.repo,
            folder_path=config.folder,
            allow_patterns=list(upload.files),
            commit_message=f"Upload {_name(config.folder)}",
        )
    except InputError:
        raise
    except Exception as error:  # which HTTP library raises differs between versions
        raise InputError(
            f"The Hub did not take {config.repo}: {_first_line(error)} The same command tries it "
            "again."
        ) from None
    return str(url)


def _address(repo: str) -> str:
    return f"{huggingface_hub.constants.ENDPOINT}/{repo}"


def _name(folder: Path) -> str:
    return str(_read(folder)["eosin"].get("name", folder.name))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else repr(error)
    return line if line.endswith(".") else f"{line}."


def _read(folder: Path) -> dict[str, Any]:
    """Reads the config of a whole export.

    Raises:
        InputError: it is none.
    """
    missing = [name for name in (CONFIG, WEIGHTS, CARD) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}; make a folder to upload with: eosin weights "
            "export RUN|NAME -o DIR"
        )
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(content["eosin"], dict):
            raise TypeError("eosin is no object")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / CONFIG} is not that of an export of Eosin ({error!r})."
        ) from None
    try:
        with safe_open(folder / WEIGHTS, framework="pt"):
            pass
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS} is damaged: {error}. Export it again.") from None
    return content

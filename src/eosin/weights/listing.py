"""What there is to know about encoders by name, without loading any."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from eosin.errors import UsageError
from eosin.weights.catalogue import RELEASED, Released
from eosin.weights.checksums import expected_checksum
from eosin.weights.foundation import FOUNDATION, Foundation
from eosin.weights.licences import accepted_on
from eosin.weights.local_records import weights_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class ListConfig:
    """Nothing is to be chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig:
    """Which encoder is described."""

    name: Annotated[str, tyro.conf.Positional]
    """A name that `eosin weights list` shows."""


def list_released() -> list[dict[str, Any]]:
    """Describes each released encoder: name, file, state (present or absent), size, licence."""
    return [{"name": name, **_state(row)} for name, row in RELEASED.items()]


def list_others() -> list[dict[str, Any]]:
    """Describes each other pathology encoder: name, title, repository, licence, whether gated."""
    return [
        {
            "name": name,
            "title": row.title,
            "repo": row.repo,
            "licence": row.licence,
            "gated": row.is_gated,
            "input_px": row.input_px,
            "embed_dim": row.embed_dim,
        }
        for name, row in FOUNDATION.items()
    ]


def lines_of_list() -> list[str]:
    """The two tables as lines of text."""
    own, others = list_released(), list_others()
    lines = [f"Released with Kang et al., CVPR 2023 (files in {weights_folder()}):"]
    for row in own:
        size = "" if row["bytes"] is None else f", {row['bytes'] / 1e6:,.1f} MB"
        lines.append(f"  {row['name']:<28}  {row['file']:<34}  {row['state']}{size}")
    width = max((len(row["name"]) for row in others), default=0)
    repo_width = max((len(str(row["repo"])) for row in others), default=0)
    lines += ["", "Of others, from the Hugging Face Hub (gated: its terms are accepted there):"]
    for row in others:
        gated = ", gated" if row["gated"] else ""
        lines.append(
            f"  {row['name']:<{width}}  {row['repo']:<{repo_width}}  {row['licence']}{gated}"
        )
    return lines


def describe(name: str) -> dict[str, Any]:
    """Gives all that must be known to use an encoder by name; plain values that JSON has.

    Raises:
        UsageError: there is no such name.
    """
    if name in RELEASED:
        return _describe_released(name, RELEASED[name])
    if name in FOUNDATION:
        return _describe_other(name, FOUNDATION[name])
    names = [*RELEASED, *FOUNDATION]
    close = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise UsageError(f"There is no row for {name!r}; see eosin weights list.{hint}")


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """Facts as lines of text: what they are called, and what they are."""
    shown = {key.replace("_", " "): _text(value) for key, value in facts.items()}
    width = max(len(key) for key in shown)
    return [f"{key:<{width}}  {value}" for key, value in shown.items()]


def _state(row: Released) -> dict[str, Any]:
    is_present = row.path.is_file()
    return {
        "file": row.file,
        "state": "present" if is_present else "absent",
        "bytes": row.path.stat().st_size if is_present else row.size_bytes,
        "licence": row.licence.short,
    }


def _describe_released(name: str, row: Released) -> dict[str, Any]:
    expected = expected_checksum(row.file, row.sha256)
    accepted = accepted_on(row.licence)
    return {
        "name": name,
        "method": row.method,
        "data": row.data,
        "architecture": row.architecture,
        "embed_dim": row.embed_dim,
        "pooling": row.pooling,
        "input_px": row.input_px,
        "mean": list(row.mean),
        "std": list(row.std),
        "mean_and_std_from": "release notes",
        "licence": row.licence.short,
        "licence_text": row.licence.url,
        "licence_accepted": accepted or "not yet",
        "citation": row.citation,
        "url": row.url,
        "sha256": expected.sha256 or "unknown; that of the first file will be recorded",
        "sha256_is": expected.source,
        "path": str(row.path),
        **{key: value for key, value in _state(row).items() if key in ("state", "bytes")},
        "readme_key": row.key,
        "mirror": f"{row.mirror.repo}, other bytes; declares {row.mirror.statistics}",
        "load": f'eosin.load_encoder("{name}")',
    }


def _describe_other(name: str, row: Foundation) -> dict[str, Any]:
    return {
        "name": name,
        "title": row.title,
        "architecture": row.architecture,
        "embed_dim": row.embed_dim,
        "pooling": row.pooling,
        "input_px": row.input_px,
        "mean": list(row.mean),
        "std": list(row.std),
        "licence": row.licence,
        "gated": row.is_gated,
        "citation": row.citation,
        "repo": row.repo,
        "note": row.source or "none",
        "fetch": f"eosin weights get {name}",
        "load": f'eosin.load_encoder("{name}")',
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)

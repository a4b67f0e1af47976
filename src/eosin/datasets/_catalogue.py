"""Which data sets there are, which are installed, and all there is to know about one."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from eosin import plugins
from eosin.datasets._base import ALL, Info, data_folder, installed_root
from eosin.datasets._getting import steps_by_hand
from eosin.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class ListConfig:
    """Where data sets are looked for."""

    root: Path | None = None
    """Folder of data sets. By default $EOSIN_DATA, or ./data where that is not set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig:
    """Which dataset is described."""

    name: Annotated[str, tyro.conf.Positional]
    """A name that `eosin datasets` lists."""
    root: Path | None = None
    """Folder of data sets. By default $EOSIN_DATA, or ./data where that is not set."""


def list_datasets(root: Path | None = None) -> list[dict[str, Any]]:
    """Gives a row for each: name, title, where it is, images, size, licence, how it is had."""
    rows: list[dict[str, Any]] = []
    for name in plugins.names("datasets"):
        info: Info = plugins.load("datasets", name).INFO
        is_own = _is_own(info)
        found = None if is_own else installed_root(name, root)
        rows.append(
            {
                "name": name,
                "title": info.title,
                "state": "yours" if is_own else "absent" if found is None else "installed",
                "path": None if found is None else str(found),
                "images": info.images,
                "download_bytes": info.download_bytes,
                "installed_bytes": info.installed_bytes,
                "licence": info.licence,
                "access": "yours" if is_own else "fetched" if info.archives else "by hand",
            }
        )
    return rows


def lines_of_list(root: Path | None = None) -> list[str]:
    """The data sets as lines of text."""
    rows = list_datasets(root)
    width = max(len(row["name"]) for row in rows)
    lines = [f"Data sets in {data_folder() if root is None else root}:"]
    for row in rows:
        if row["state"] == "absent":
            how = "by hand" if row["access"] == "by hand" else "to fetch"
            where = f"absent, {_size(row['download_bytes'])} {how}"
        elif row["state"] == "installed":
            where = f"in {row['path']}"
        else:
            continue
        images = f"{_count(row['images']):>7} images"
        lines.append(f"  {row['name']:<{width}}  {images}  {where:<24}  {row['licence']}")
    own = ", ".join(row["name"] for row in rows if row["state"] == "yours")
    return [*lines, f"Images of your own are given by their folder ({own})."]


def describe(name: str, root: Path | None = None) -> dict[str, Any]:
    """Gives all there is to know about a dataset; plain values that JSON has.

    Raises:
        UsageError: there is no such dataset.
    """
    names = plugins.names("datasets")
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"There is no data set {name!r}; see eosin datasets.{hint}")
    info: Info = plugins.load("datasets", name).INFO
    found = None if _is_own(info) else installed_root(name, root)
    place = (data_folder() if root is None else root) / name
    return {
        "name": name,
        "title": info.title,
        "installed": None if found is None else str(found),
        "licence": f"{info.licence} ({info.licence_url})" if info.licence_url else info.licence,
        "citation": info.citation,
        "source": info.source,
        "holds": "outlined nuclei" if info.holds == "instances" else "labelled images",
        "classes": list(info.classes),
        "images": dict(info.counts) or info.images,
        "images_of_each_class": {key: dict(each) for key, each in info.class_counts.items()},
        "nuclei": dict(info.instances),
        "division": info.division,
        "groups": info.groups,
        "image_px": None if info.image_px is None else list(info.image_px),
        "micrometres_a_pixel": info.mpp,
        "download_bytes": info.download_bytes,
        "installed_bytes": info.installed_bytes,
        "archives": [f"{each.url} ({each.checksum})" for each in info.archives],
        "how_to_get": list(steps_by_hand(info, place)),
        "remarks": list(info.remarks),
        "expected_tree": info.expected_tree.strip("\n"),
    }


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """Facts as lines of text; what is unknown or empty is left out."""
    lines: list[str] = []
    for key, value in facts.items():
        if value in (None, "", [], {}):
            continue
        name = key.replace("_", " ")
        if key == "expected_tree":
            lines += [f"{name}:", *(f"  {line}" for line in value.splitlines())]
        elif isinstance(value, list) and key not in ("classes", "image_px"):
            lines += [f"{name}:", *(f"  - {each}" for each in value)]
        else:
            lines.append(f"{name}: {_text(key, value)}")
    return lines


def _text(key: str, value: Any) -> str:
    if key.endswith("_bytes"):
        return f"about {_size(value)}"
    if isinstance(value, list):
        return (" x " if key == "image_px" else ", ").join(map(str, value))
    if isinstance(value, Mapping):
        if all(isinstance(each, Mapping) for each in value.values()):
            inner = [f"{'' if k == ALL else k + ': '}{_text(k, each)}" for k, each in value.items()]
            return "; ".join(inner)
        return ", ".join(
            f"{each:,} {name if name != ALL else 'in all'}" for name, each in value.items()
        )
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_own(info: Info) -> bool:
    return not info.archives and not info.how_to_get


def _size(count: int | None) -> str:
    if count is None:
        return "size unknown"
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


def _count(images: int | None) -> str:
    return "?" if images is None else f"{images:,}"

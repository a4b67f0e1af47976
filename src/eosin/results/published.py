"""Values that others published, for the same encoder, data set and protocol as ours.

They are in `published.json`, each with the public file and version that it was taken from. A value
of another protocol is another quantity, so that none is ever looked up across protocols. The same
weights were embedded by other code: the size of the images and the pooling may differ from ours.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean

from eosin.results.schema import Result

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published value.

    Attributes:
        encoder: as its source calls it.
        ours: as Eosin calls it; empty where Eosin does not know it.
        dataset: as Eosin calls it.
        task: what was done.
        protocol: id of the protocol.
        metric: as Eosin calls it, or as the source does.
        value: as published.
        split: what the source says it was measured on.
        on: which split of ours that is: `test`, `valid`, or `unstated`.
        source: repository, version and file.
    """

    encoder: str
    ours: str
    dataset: str
    task: str
    protocol: str
    metric: str
    value: float
    split: str
    on: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """A published value, and ours on the images as they are with all labels."""

    encoder: str
    published: Published
    value: float
    """The mean over seeds."""
    runs: int


@functools.cache
def read_published() -> tuple[Published, ...]:
    """Gives all published values."""
    text = (files("eosin.results") / "published.json").read_text(encoding="utf-8")
    content = json.loads(text)
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"published.json has version {content['schema_version']}")
    names: Mapping[str, str] = content["encoders"]
    return tuple(Published(**row, ours=names.get(row["encoder"], "")) for row in content["rows"])


def find_published(encoder: str, dataset: str, protocol: str) -> list[Published]:
    """Finds what was published for an encoder and a data set, as Eosin calls them, by a protocol.

    Args:
        encoder: such as `vit_small_patch16.lunit_dino`.
        dataset: such as `patch_camelyon`.
        protocol: id of the protocol, such as `eva-2025-03`.
    """
    wanted = (encoder, dataset, protocol)
    return [row for row in read_published() if (row.ours, row.dataset, row.protocol) == wanted]


def values_beside(results: Sequence[Result], labels: Mapping[str, str]) -> Iterator[Beside]:
    """Yields what was published for what was measured, by the same protocol and metric.

    Args:
        results: the rows.
        labels: name of the encoder of each row, by row id.
    """
    places: dict[tuple[str, str, str, str, str], list[Result]] = {}
    for row in results:
        if row.label_fraction == 1 and row.data.shift == "none":
            label = labels[row.row_id]
            place = (label, row.encoder.name, row.data.name, row.protocol.id, row.task)
            places.setdefault(place, []).append(row)
    for (label, name, data, protocol, task), rows in places.items():
        for each in find_published(name, data, protocol):
            values = [row.metrics[each.metric].value for row in rows if each.metric in row.metrics]
            if (each.task, each.on) == (task, "test") and values:
                yield Beside(encoder=label, published=each, value=fmean(values), runs=len(values))

"""Which images of a dataset, and of what encoders were pre-trained on, are copies of its others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eosin.audit import duplicates, thumbnails
from eosin.audit.duplicates import Described, Pair, Search
from eosin.audit.thumbnails import LeftOut
from eosin.datasets._base import LabelledImages
from eosin.progress import Bar

JUDGED = ("valid", "test")
"""Splits whose images should be new."""

_IMAGES_AT_ONCE = 4096


class NamedImages(Protocol):
    """Images by number, with names."""

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """Names an image."""
        ...

    def read(self, index: int, /) -> NDArray[np.uint8]:
        """Reads an image as uint8 RGB [H, W, 3]; InputError if it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True)
class SplitImages:
    """A split of a dataset as images with names."""

    images: LabelledImages

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """The image's id."""
        return self.images.ids[index]

    def read(self, index: int) -> NDArray[np.uint8]:
        """Reads an image."""
        return self.images.read(index)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What came of looking through some images.

    Attributes:
        title: what they are.
        images: the images.
        left_out: those that cannot be compared.
    """

    title: str
    images: NamedImages
    left_out: LeftOut


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The near-duplicates of a split in other images."""

    split: str
    queries: NamedImages
    against: str
    references: NamedImages
    pairs: Sequence[Pair]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Splits of one dataset whose images should be new, described."""

    dataset: str
    splits: Mapping[str, tuple[NamedImages, Described]]


def look_at(dataset: str, splits: Mapping[str, LabelledImages]) -> tuple[Judged, list[Looked]]:
    """Reads the judged splits of a dataset and describes them."""
    described: dict[str, tuple[NamedImages, Described]] = {}
    looked: list[Looked] = []
    for name in JUDGED:
        if name not in splits:
            continue
        images = SplitImages(images=splits[name])
        found = _start(f"{dataset} {name}", images)
        parts = list(_described(found))
        if parts:
            described[name] = images, duplicates.join(parts)
        looked.append(found)
    return Judged(dataset=dataset, splits=described), looked


def compare_splits(
    judged: Judged, train: LabelledImages | None, correlation: float
) -> tuple[list[Compared], list[Looked]]:
    """Finds copies of judged images in the training split, and of test images in `valid`."""
    compared: list[Compared] = []
    looked: list[Looked] = []
    if train is not None:
        images = SplitImages(images=train)
        found, of_train = compare_with(f"{judged.dataset} train", images, [judged], correlation)
        compared += found[0]
        looked.append(of_train)
    if len(judged.splits) == len(JUDGED):
        valid, test = (judged.splits[name] for name in JUDGED)
        pairs = Search(test[1], correlation=correlation).against(valid[1])
        compared.append(
            Compared(
                split=JUDGED[1],
                queries=test[0],
                against=f"{judged.dataset} {JUDGED[0]}",
                references=valid[0],
                pairs=pairs,
            )
        )
    return compared, looked


def compare_with(
    title: str, images: NamedImages, judged: Sequence[Judged], correlation: float
) -> tuple[list[list[Compared]], Looked]:
    """Reads images once, and finds what of the judged splits of several datasets is among them.

    Returns:
        For each dataset, a result for each of its judged splits; and what was left out.
    """
    looked = _start(title, images)
    searches = [
        {name: Search(each[1], correlation=correlation) for name, each in one.splits.items()}
        for one in judged
    ]
    pairs: list[dict[str, list[Pair]]] = [{name: [] for name in one.splits} for one in judged]
    for part in _described(looked):
        for found, search_of in zip(pairs, searches, strict=True):
            for name, search in search_of.items():
                found[name] += search.against(part)
    compared = [
        [
            Compared(
                split=name,
                queries=one.splits[name][0],
                against=title,
                references=images,
                pairs=sorted(each, key=_order),
            )
            for name, each in found.items()
        ]
        for one, found in zip(judged, pairs, strict=True)
    ]
    return compared, looked


def _order(pair: Pair) -> tuple[int, float, int]:
    return pair.query, -pair.correlation, pair.reference


def _start(title: str, images: NamedImages) -> Looked:
    left_out = LeftOut(near_constant=[], unreadable={})
    return Looked(title=title, images=images, left_out=left_out)


def _described(looked: Looked) -> Iterator[Described]:
    with Bar(f"comparing {looked.title}", len(looked.images), "images") as bar:
        for part in thumbnails.read_thumbnails(
            looked.images, bar, looked.left_out, _IMAGES_AT_ONCE
        ):
            yield duplicates.describe(part)

"""What can be embedded: tile stores, folders and lists of images, HDF5 files, labelled datasets."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol, overload

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eosin import plugins
from eosin.datasets._base import LabelledImages, Options, check_labelled, find_dataset
from eosin.embeddings.image_files import HDF5Images, ImageFiles, read_list
from eosin.embeddings.rows import rows_of
from eosin.errors import InputError, UsageError
from eosin.images.files import SUFFIXES, find_images
from eosin.provenance import sha256_of
from eosin.store.export_format import is_exported
from eosin.store.exported import ExportedStore
from eosin.store.locations import Location, is_url
from eosin.store.samples import Samples, Store
from eosin.store.shards import TilePlace, tile_name
from eosin.store.tile_store import TileStore

Image = NDArray[np.uint8]

_ANY_TREE = "folder"
_ROWS_AT_ONCE = 65_536


class Source(Protocol):
    """Images by number, which any number of threads read, and what is known of each."""

    @property
    def kind(self) -> str:
        """What it is, in a word or two."""
        ...

    @property
    def manifest_sha256(self) -> str:
        """Hash of the content; it may take a while at first."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """The `id` of an image."""
        ...

    def read(self, index: int, /) -> Image:
        """Reads an image as uint8 RGB [H, W, 3]; InputError if it cannot be read."""
        ...

    def rows(self, start: int, stop: int, /) -> pa.Table:
        """Gives what is known of some images in a row, as `rows.ROW_SCHEMA` has it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the user wants embedded; small, so that other machines can be told of it."""

    data: tuple[str, ...]
    """Paths, and URLs of exported stores."""
    dataset: str | None = None
    """Name of the layout that labels are read by, where the content does not tell."""
    limit: int | None = None
    """Only the first so many images."""

    def open(self) -> "Joined":
        """Opens everything.

        Raises:
            InputError: there is nothing to embed at a path; the message says what to give.
            UsageError: there is no such dataset, or a path is given twice.
        """
        if len(set(self.data)) < len(self.data):
            raise UsageError("--data names the same path twice; give each once.")
        found = [open_source(path, self.dataset) for path in self.data]
        return Joined(self.data, found, self.limit)


def open_source(path: str, dataset: str | None = None) -> Source:
    """Opens a tile store, images in a folder, a list or an HDF5 file, or a labelled dataset.

    A folder is read as a labelled dataset where `dataset` names its layout, or where its files have
    the names that one of `eosin.datasets` knows; any other one is searched for images.

    Raises:
        InputError: there are no images; the message says what to give instead.
        UsageError: there is no such dataset, or a URL is of no known kind.
    """
    try:
        source = StoreTiles(ExportedStore(path)) if is_url(path) else _open(Path(path), dataset)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if len(source) == 0:
        raise InputError(f"{path} holds no images to embed.")
    return source


def _open(path: Path, dataset: str | None) -> Source:
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a tile store, a folder of images, a list of images, an "
            "HDF5 file or a labelled dataset."
        )
    if path.is_file():
        return HDF5Images(path) if h5py.is_hdf5(path) else _listed(path)
    if TileStore.is_store(path):
        return StoreTiles(TileStore(path))
    if is_exported(Location(path)):
        return StoreTiles(ExportedStore(path))
    known = [plugins.load("datasets", n) for n in plugins.names("datasets") if n != _ANY_TREE]
    labelled = [module for module in known if module.INFO.holds == "labels"]
    if dataset is not None or any(module.recognises(path) for module in labelled):
        return LabelledDataset(path, dataset)
    found = find_images(path)
    if not found:
        raise InputError(
            f"{path} holds no images ({', '.join(SUFFIXES)}) at any depth, and is no tile store; "
            "make one of slides with `eosin tile`."
        )
    return ImageFiles(path, found, "folder of images")


def _listed(path: Path) -> ImageFiles:
    return ImageFiles(path.parent, read_list(path), "list of images")


class StoreTiles:
    """The tiles of a store, straight from their JPEGs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kind = "tile store" if isinstance(store, TileStore) else "exported tile store"

    @property
    def manifest_sha256(self) -> str:
        """The store's own hash of its slides, rows and checksums."""
        return self.store.fingerprint

    def __len__(self) -> int:
        return len(self.store)

    def name(self, index: int) -> str:
        """Names a tile as its shard does."""
        return str(self.rows(index, index + 1)["id"][0])

    def read(self, index: int) -> Image:
        """Reads a tile."""
        return self.store.read(index)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Slide, patient and place of some tiles."""
        facts = self._samples.take(np.arange(start, stop))
        slides, paths = facts["slide_id"].to_pylist(), self.store.slide_table["path"]
        columns = ("x", "y", "target_mpp", "mpp", "tissue")
        places = zip(*(facts[name].to_pylist() for name in columns), strict=True)
        names = map(tile_name, (TilePlace(*place) for place in places))
        return rows_of(
            stop - start,
            id=[f"{slide}/{name}" for slide, name in zip(slides, names, strict=True)],
            path=paths.take(facts["slide"]).to_pylist(),
            slide_id=slides,
            patient=facts["patient"].to_pylist(),
            group=facts["group"].to_pylist(),
            x=facts["x"].to_numpy(),
            y=facts["y"].to_numpy(),
            mpp=facts["mpp"].to_numpy(),
        )

    @functools.cached_property
    def _samples(self) -> Samples:
        return Samples(self.store)


class LabelledDataset:
    """All splits of a labelled dataset, one after the other.

    Raises:
        InputError: the files are not as the dataset needs them.
        UsageError: there is no dataset of that name.
    """

    def __init__(self, root: Path, name: str | None) -> None:
        module = find_dataset(root, name)
        check_labelled(module, root)
        options = Options()
        splits = module.splits(root, options)
        self._splits: list[LabelledImages] = [module.load(root, s, options) for s in splits]
        self._starts = list(accumulate(map(len, self._splits), initial=0))
        self.kind = f"labelled dataset ({self._splits[0].dataset})"
        self.manifest_sha256 = sha256_of([split.manifest_sha256 for split in self._splits])

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, index: int) -> str:
        """The image's id in its dataset."""
        split, number = _find(self._starts, index)
        return self._splits[split].ids[number]

    def read(self, index: int) -> Image:
        """Reads an image."""
        split, number = _find(self._starts, index)
        return self._splits[split].read(number)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Label, group and split of some images."""
        tables: list[pa.Table] = []
        for images, offset in zip(self._splits, self._starts, strict=False):
            first, last = max(start - offset, 0), min(stop - offset, len(images))
            if first < last:
                tables.append(
                    rows_of(
                        last - first,
                        id=list(images.ids[first:last]),
                        path=list(images.ids[first:last]),
                        group=images.groups[first:last].tolist(),
                        label=[images.classes[label] for label in images.labels[first:last]],
                        split=images.split,
                    )
                )
        return pa.concat_tables(tables)


class Joined:
    """All images of a run by number: those of the first source, then those of the next.

    Args:
        names: of the sources, as they were given.
        sources: in that order.
        limit: only the first so many images.
    """

    def __init__(
        self, names: Sequence[str], sources: Sequence[Source], limit: int | None = None
    ) -> None:
        self.names, self.sources = list(names), list(sources)
        self._starts = list(accumulate(map(len, sources), initial=0))
        self._count = self._starts[-1] if limit is None else min(limit, self._starts[-1])

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Sequence[str]:
        """The id of each image, made when it is asked for."""
        return _Names(self)

    @property
    def manifest_sha256(self) -> str:
        """Hash of all sources' content and of how many images are taken."""
        return sha256_of([[one.manifest_sha256 for one in self.sources], self._count])

    def name(self, index: int) -> str:
        """The id of an image."""
        source, number = _find(self._starts, index)
        return self.sources[source].name(number)

    def read(self, index: int) -> Image:
        """Reads an image as uint8 RGB [H, W, 3].

        Raises:
            InputError: it cannot be read.
        """
        source, number = _find(self._starts, index)
        return self.sources[source].read(number)

    def rows(self) -> Iterator[pa.Table]:
        """Yields what is known of all images, some thousands at a time."""
        for name, source, offset in zip(self.names, self.sources, self._starts, strict=False):
            count = min(len(source), self._count - offset)
            for start in range(0, count, _ROWS_AT_ONCE):
                rows = source.rows(start, min(start + _ROWS_AT_ONCE, count))
                named = pa.repeat(pa.scalar(name), len(rows))
                yield rows.set_column(rows.schema.get_field_index("source"), "source", named)


class _Names(Sequence[str]):
    """The ids of many images, none of which costs memory."""

    def __init__(self, images: Joined) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return self._images.name(places)
        return [self._images.name(place) for place in places]


def _find(starts: Sequence[int], index: int) -> tuple[int, int]:
    """Which of several runs of numbers an index falls into, and its place there."""
    run = int(np.searchsorted(starts, index, side="right")) - 1
    return run, index - starts[run]

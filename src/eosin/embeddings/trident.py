"""`eosin embed --layout trident`: one HDF5 file a slide, as TRIDENT writes and MIL tools read them.

<out>/<20>x_<tile>px_<overlap>px_overlap/features_<encoder>/<slide>.h5 holds `features` [N, D] and
`coords` [N, 2], the upper left corners in level-0 pixels, with TRIDENT's attributes. A file is
whole or absent, and carries the hash of all that determines it.
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eosin import atomic
from eosin.embeddings import matrix_file
from eosin.embeddings.extract import Batch, Matrix, batches_of
from eosin.embeddings.trident_files import SlideFile, find_files, store_of
from eosin.embeddings.work import EmbedReport, Work, bytes_of, differences, stamp
from eosin.engine import distributed
from eosin.engine.sharing import together
from eosin.engine.stopping import stop_request
from eosin.errors import InputError
from eosin.progress import Bar
from eosin.provenance import plain

_ABOUT = "embed.json"
_ATTRIBUTE = "eosin"
# An attribute of an HDF5 file holds 64 kB.
_MOST_REASONS, _MOST_LETTERS = 100, 300


def run(work: Work) -> EmbedReport:
    """Embeds all slides that have no file yet; every process of `torchrun` calls it.

    Raises:
        UsageError: the data are no tile stores.
        InputError: an embedding is not finite, too many tiles are unreadable, or a file is of
            other settings.
        Interrupted: stopped; the same command goes on.
    """
    started = time.monotonic()
    with ExitStack() as held:

        def begin() -> tuple[list[SlideFile], list[SlideFile]]:
            files = list(find_files(work))
            if distributed.is_main():
                held.enter_context(atomic.locked(work.config.out))
                for folder in {file.path.parent for file in files}:
                    atomic.remove_leftovers(folder)
            return files, [file for file in files if not is_finished(file, work.what)]

        files, left = together(begin)
        left = distributed.from_main(left)
        work.flag.clear()
        own = _share(left)
        together(lambda: _embed(work, files, own), work.flag)
        finish = together(lambda: _finish(work, files) if distributed.is_main() else None)
        unreadable, lost = distributed.from_main(finish)
    folders = dict.fromkeys(file.path.parent for file in files)
    count = sum(len(file.images) for file in files) - lost
    return EmbedReport(
        out=work.config.out,
        files=tuple(folders),
        embeddings=count,
        embed_dim=work.encoder.embed_dim,
        bytes=bytes_of(work, count),
        done=sum(len(file.images) for file in left),
        unreadable=unreadable,
        seconds=time.monotonic() - started,
    )


def is_finished(file: SlideFile, what: Mapping[str, Any]) -> bool:
    """Whether a slide has its file; one of tiles that were cut anew since is written again.

    Raises:
        InputError: the file is of other settings, or none of ours.
    """
    if not file.path.exists():
        return False
    about = _read_about(file.path)
    if about is None:
        raise InputError(f"{file.path} was not written by `eosin embed`; choose another --out.")
    if about.get("settings") != plain(what):
        raise InputError(
            f"{file.path} holds features of other settings: "
            f"{differences(about.get('settings', {}), plain(what))}. Choose another --out."
        )
    return about.get("key") == file.key


def _read_about(path: Path) -> dict[str, Any] | None:
    try:
        with h5py.File(path) as file:
            about = json.loads(str(file.attrs[_ATTRIBUTE]))
            return about if isinstance(about, dict) else None
    except (OSError, KeyError, ValueError):
        return None


def _share(files: list[SlideFile]) -> list[SlideFile]:
    """This process's slides: a run of them with about its share of the tiles."""
    counts = np.array([len(file.images) for file in files], dtype=np.int64)
    middles = (counts.cumsum() - counts / 2) / max(1, counts.sum())
    ranks = (middles * distributed.world_size()).astype(np.int64)
    return [files[n] for n in np.flatnonzero(ranks == distributed.rank()).tolist()]


def _embed(work: Work, files: list[SlideFile], own: list[SlideFile]) -> None:
    """Embeds slides and writes each when the last of its tiles is there."""
    if not own:
        return
    writer = _Writer(work, own)
    batches = [batch for file in own for batch in _batches(file, work)]
    total, title = sum(len(file.images) for file in own), f"embedding with {work.encoder.name}"
    before = sum(len(file.images) for file in files) - total
    if distributed.is_distributed():
        before, title = 0, f"{title}, process 1 of {distributed.world_size()}"
    hidden = not distributed.is_main()
    with (
        Bar(title, before + total, "tiles", done=before, is_hidden=hidden) as bar,
        stop_request() as stop,
        closing(work.make(batches)) as made,
    ):
        work.check(writer.unreadable, stop)
        for batch in made:
            writer.add(batch)
            bar.advance(len(batch.images), f"{writer.written:,} slides")
            work.check(writer.unreadable, stop)


def _batches(file: SlideFile, work: Work) -> list[range]:
    """A slide's own batches, so that its bits do not depend on the slides beside it."""
    cut = batches_of(len(file.images), work.config.embedding.batch_size)
    return [file.images[batch.start : batch.stop] for batch in cut]


@dataclass
class _Writer:
    """Collects the embeddings of slides, in any order, until they are whole."""

    work: Work
    own: list[SlideFile]
    unreadable: dict[int, str] = field(default_factory=dict[int, str])
    written: int = 0
    begun: dict[int, tuple[Matrix, int]] = field(default_factory=dict[int, tuple[Matrix, int]])

    def __post_init__(self) -> None:
        self._starts = np.array([file.images.start for file in self.own], dtype=np.int64)

    def add(self, batch: Batch) -> None:
        number = int(np.searchsorted(self._starts, batch.images.start, side="right")) - 1
        file = self.own[number]
        shape = (len(file.images), self.work.encoder.embed_dim)
        features, left = self.begun.get(number) or (np.empty(shape, np.float32), shape[0])
        place = batch.images.start - file.images.start
        features[place : place + len(batch.images)] = batch.embeddings
        self.unreadable.update(batch.unreadable)
        left -= len(batch.images)
        self.begun[number] = features, left
        if left == 0:
            del self.begun[number]
            own = {i: self.unreadable[i] for i in self.unreadable if i in file.images}
            write_slide(file, self.work, features, own)
            self.written += 1


def write_slide(
    file: SlideFile, work: Work, features: Matrix, unreadable: Mapping[int, str]
) -> None:
    """Writes a slide's file, whole or not at all."""
    kept = np.array([index not in unreadable for index in file.images], np.bool_)
    with np.errstate(over="ignore"):
        values = features[kept].astype(matrix_file.DTYPES[work.config.dtype])
    if not np.isfinite(values).all():
        raise InputError(
            "--dtype float16 cannot hold these embeddings, since some are greater than 65,504; "
            "give --dtype float32."
        )
    named = list(work.named(unreadable).items())[:_MOST_REASONS]
    about = {
        "key": file.key,
        "settings": plain(work.what),
        "unreadable": {name: reason[:_MOST_LETTERS] for name, reason in named},
        "unreadable_count": len(unreadable),
    }
    encoder = {"name": file.attributes["name"], "encoder": work.encoder.name}
    # HDF5 brings the whole process down on a full disk, so it writes to memory.
    with h5py.File(file.path.name, "w", driver="core", backing_store=False) as content:
        written = content.create_dataset("features", data=values)
        written.attrs.update({**encoder, "savetodir": str(file.path.parent)})
        coords = content.create_dataset("coords", data=_coords(file, work)[kept])
        coords.attrs.update(file.attributes)
        content.attrs[_ATTRIBUTE] = json.dumps(about)
        content.flush()
        image = content.id.get_file_image()
    atomic.write_bytes(file.path, image)


def _coords(file: SlideFile, work: Work) -> NDArray[np.int64]:
    store = store_of(work, file.source)
    first = sum(len(source) for source in work.images.sources[: file.source])
    tiles = slice(file.images.start - first, file.images.stop - first)
    return np.stack([store.column(name)[tiles] for name in ("x", "y")], 1).astype(np.int64)


def _finish(work: Work, files: list[SlideFile]) -> tuple[dict[str, str], int]:
    """Writes `embed.json` beside the files, and gives what is unreadable in any, and how many."""
    everything, total = dict[str, str](), 0
    for folder in dict.fromkeys(file.path.parent for file in files):
        within = [file for file in files if file.path.parent == folder]
        unreadable, count = dict[str, str](), 0
        for file in within:
            about = _read_about(file.path)
            if about is None:
                raise InputError(f"{file.path} cannot be read; delete it, and embed again.")
            unreadable.update(about["unreadable"])
            count += about["unreadable_count"]
        facts: dict[str, Any] = {
            "slides": len(within),
            "embeddings": sum(len(file.images) for file in within) - count,
            "unreadable": unreadable,
            "unreadable_count": count,
            "settings": dict(work.what),
        }
        atomic.write_json(folder / _ABOUT, stamp(work, facts))
        everything.update(unreadable)
        total += count
    return everything, total

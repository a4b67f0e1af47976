"""`eosin embed` into one matrix: `embeddings.safetensors`, `rows.parquet`, `embed.json`.

`embed.json` is written last: a folder without it is unfinished, and the same command goes on.
"""

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eosin import atomic
from eosin.embeddings import matrix_file
from eosin.embeddings.cache import fill
from eosin.embeddings.matrix_file import MatrixWriter
from eosin.embeddings.parts import Parts, Shape
from eosin.embeddings.rows import ROW_SCHEMA
from eosin.embeddings.work import EmbedReport, Work, bytes_of, differences, stamp
from eosin.engine import distributed
from eosin.engine.sharing import share, together
from eosin.engine.stopping import stop_request
from eosin.errors import InputError
from eosin.progress import Bar
from eosin.provenance import sha256_of

MATRIX, ROWS, ABOUT = "embeddings.safetensors", "rows.parquet", "embed.json"


def run(work: Work) -> EmbedReport:
    """Embeds all images into one matrix; every process of `torchrun` calls it.

    Raises:
        InputError: an embedding is not finite, too many images are unreadable, or the folder holds
            other embeddings.
        Interrupted: stopped; the same command goes on.
    """
    started = time.monotonic()
    main = distributed.is_main()
    # One process hashes the images for all.
    settings = distributed.from_main(together(lambda: _settings(work) if main else {}))
    with ExitStack() as held:
        finished = distributed.from_main(together(lambda: _take(work, settings, held)))
        if finished is not None:
            return _report(work, finished, 0, started)
        work.flag.clear()
        done, before = _embed(work, sha256_of(settings))
        about = together(lambda: _finish(work, settings, done) if main else None)
        return _report(work, distributed.from_main(about), len(work.images) - before, started)


def _settings(work: Work) -> dict[str, Any]:
    """All that determines the files; another folder is for other settings."""
    return {**work.what, "images": work.images.manifest_sha256}


def _take(work: Work, settings: Mapping[str, Any], held: ExitStack) -> dict[str, Any] | None:
    """Locks the folder, and gives what `embed.json` says if it is finished already."""
    out = work.config.out
    if not distributed.is_main():
        return None
    held.enter_context(atomic.locked(out))
    atomic.remove_leftovers(out)
    try:
        about = json.loads((out / ABOUT).read_text())
        before, count = about["settings"], about["embeddings"]
    except FileNotFoundError:
        _refuse_other_files(out)
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out / ABOUT} is not that of embeddings: {error!r}.") from None
    if before != settings:
        raise InputError(
            f"{out} holds other embeddings: {differences(before, settings)}. Choose another --out, "
            "or delete the folder."
        )
    is_whole = matrix_file.is_whole(out / MATRIX) and _count_rows(out / ROWS) == count
    return about if is_whole else None


def _refuse_other_files(out: Path) -> None:
    ours = (MATRIX, ROWS)
    strange = [
        path.name
        for path in out.iterdir()
        if path.name not in ours and path.suffix != ".parts" and path.name[0] != "."
    ]
    if strange:
        raise InputError(
            f"{out} is neither empty nor a folder of embeddings: it has {sorted(strange)[0]}; "
            "choose another --out."
        )


def _count_rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return -1


def _embed(work: Work, key: str) -> tuple[Parts, int]:
    """Embeds this process's share of what is left, and gives all parts and what was there."""
    shape = Shape(
        key=key,
        images=len(work.images),
        embed_dim=work.encoder.embed_dim,
        batch_size=work.config.embedding.batch_size,
    )
    folder = work.config.out / f"{key[:16]}-{shape.batch_size}.parts"
    rank = distributed.rank()
    done = together(lambda: Parts(folder, shape, rank, looks=rank == 0))
    left = distributed.from_main(done.left)
    before = distributed.from_main(done.images_done)
    own = share(left)

    def embed() -> None:
        with _bar(work, own, shape, before) as bar, stop_request() as stop:
            work.check(done.unreadable, stop)
            batches = own.tolist()
            fill(done, batches, work.make, bar, lambda: work.check(done.unreadable, stop))
        if distributed.is_distributed():
            done.flush()

    together(embed, work.flag)
    return done, before


def _bar(work: Work, own: np.ndarray, shape: Shape, before: int) -> Bar:
    title, hidden = f"embedding with {work.encoder.name}", not distributed.is_main()
    if not distributed.is_distributed():
        return Bar(title, shape.images, "images", done=before, is_hidden=hidden)
    count = sum(len(shape.images_of(int(batch))) for batch in own)
    title = f"{title}, process 1 of {distributed.world_size()}"
    return Bar(title, count, "images", is_hidden=hidden)


def _finish(work: Work, settings: Mapping[str, Any], done: Parts) -> dict[str, Any]:
    """Writes the files from the parts, and removes those."""
    out = work.config.out
    done.look_again()
    if len(done.left):
        raise InputError(
            f"{done.folder} lacks what other processes have written; --out must lie on a file "
            "system that all of them share."
        )
    work.check(done.unreadable, lambda: False)
    kept = np.ones(len(work.images), np.bool_)
    kept[list(done.unreadable)] = False
    count = int(kept.sum())
    sources = write_rows(out / ROWS, work.images.rows(), kept)
    metadata = {
        "key": sha256_of(settings),
        "encoder": work.encoder.name,
        "weights_sha256": str(work.what["weights"]),
        "transform": work.encoder.transform_id(),
        "pooling": work.encoder.pooling,
        "precision": str(work.what["precision"]),
        "rows": ROWS,
    }
    shape = (count, work.encoder.embed_dim)
    with matrix_file.writing(out / MATRIX, shape, work.config.dtype, metadata) as matrix:
        _copy(done, kept, matrix)
    about = stamp(
        work,
        {
            "embeddings": count,
            "images": len(work.images),
            "unreadable": work.named(done.unreadable),
            "files": {"matrix": MATRIX, "rows": ROWS},
            "rows_of_sources": sources,
            "settings": dict(settings),
        },
    )
    atomic.write_json(out / ABOUT, about)
    for folder in out.glob("*.parts"):
        shutil.rmtree(folder, ignore_errors=True)
    return about


def write_rows(path: Path, tables: Any, kept: np.ndarray) -> dict[str, int]:
    """Writes the rows of the images that have an embedding, and counts those of each source.

    Args:
        path: the Parquet file.
        tables: `rows.ROW_SCHEMA` of all images, some at a time.
        kept: whether an image has an embedding [N].
    """
    counts: dict[str, int] = {}
    start = 0
    with (
        atomic.replacing(path) as temporary,
        pq.ParquetWriter(temporary, ROW_SCHEMA, compression="zstd") as writer,
    ):
        for table in tables:
            chosen = table.filter(pa.array(kept[start : start + len(table)]))
            start += len(table)
            writer.write_table(chosen)
            name = str(table["source"][0])
            counts[name] = counts.get(name, 0) + len(chosen)
    return counts


def _copy(done: Parts, kept: np.ndarray, matrix: MatrixWriter) -> None:
    places = np.cumsum(kept) - 1
    for images, embeddings in done.pieces():
        own = kept[images.start : images.stop]
        with np.errstate(over="ignore"):
            values = embeddings[own].astype(matrix.dtype)
        if matrix.dtype == np.float16 and not np.isfinite(values).all():
            raise InputError(
                "--dtype float16 cannot hold these embeddings, since some are greater than "
                "65,504; give --dtype float32."
            )
        if len(values):
            matrix.put(int(places[images.start : images.stop][own][0]), values)


def _report(work: Work, about: Mapping[str, Any], done: int, started: float) -> EmbedReport:
    out = work.config.out
    return EmbedReport(
        out=out,
        files=(out / MATRIX, out / ROWS, out / ABOUT),
        embeddings=about["embeddings"],
        embed_dim=work.encoder.embed_dim,
        bytes=bytes_of(work, about["embeddings"]),
        done=done,
        unreadable=about["unreadable"],
        seconds=time.monotonic() - started,
    )

import json
import os
import resource
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import eosin.embeddings
from eosin.embeddings.embed import Config, embed_images
from eosin.embeddings.extract import Config as Computing
from eosin.embeddings.trident_files import magnification
from eosin.embeddings.work import EmbedReport
from eosin.errors import InputError, Interrupted, UsageError
from eosin.slides.quality import Quality
from eosin.store import shards
from eosin.store import tile_store as store
from eosin.store.records import SlideRecord
from eosin.store.shards import TilePlace
from eosin.store.tile_store import TileStore
from tests.embeddings.drawn_images import HISTOGRAM, draw_images, export_small
from tests.store.small_stores import TILE_PX, add_slide, draw_tile, encode, make_store

FOLDER = f"20x_{TILE_PX}px_0px_overlap/features_{HISTOGRAM}"


def run(data: Path | tuple[Path, ...], out: Path, encoder: str = HISTOGRAM, **changes: Any):
    paths = data if isinstance(data, tuple) else (data,)
    computing = Computing(precision="fp32", batch_size=4, workers=1)
    return embed_images(
        Config(
            encoder=encoder,
            data=tuple(map(str, paths)),
            out=out,
            layout="trident",
            embedding=computing,
            **changes,
        )
    )


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return make_store(tmp_path / "tiles", {"one-00000001": 5, "two-00000002": 9})


def two_resolutions(folder: Path) -> Path:
    """A slide of 0.25 mpp with tiles at 0.5 and at 1 mpp, overlapping by 8 px."""
    settings = {"mpp": [0.5, 1.0], "overlap_px": 8}
    store.create(folder, TILE_PX, [0.5, 1.0], settings)
    with shards.writing_shard(folder, "deep-00000009") as shard:
        for number, mpp in enumerate([0.5] * 6 + [1.0] * 2):
            place = TilePlace(48 * number, 96, mpp, mpp, 0.9)
            shard.add(place, Quality(1.0, 0.0, 0.0, 0.0), encode(draw_tile(number)))
    shards.write_mask(folder, "deep-00000009", np.ones((4, 4), np.bool_))
    rows = shard.rows()
    record = SlideRecord(
        slide_id="deep-00000009",
        path="cohort/deep.svs",
        mpp=0.25,
        width_px=4000,
        height_px=3000,
        tiles=8,
        bytes=shards.shard_path(folder, "deep-00000009").stat().st_size,
        rows_sha256=shards.hash_rows(rows),
    )
    shards.commit(folder, record, rows)
    store.finish(folder)
    return folder


def test_a_file_a_slide_as_trident_has_it(tiles: Path, tmp_path: Path) -> None:
    report = run(tiles, tmp_path / "emb")
    assert (report.embeddings, report.done, report.exit_code) == (14, 14, 0)
    assert report.files == (tmp_path / "emb" / FOLDER,)
    names = sorted(path.name for path in report.files[0].iterdir())
    assert names == ["embed.json", "one-00000001.h5", "two-00000002.h5"]
    with h5py.File(report.files[0] / "two-00000002.h5") as file:
        assert set(file) == {"features", "coords"}
        assert file["features"].shape == (9, 512) and file["features"].dtype == np.float32
        assert file["features"].attrs["encoder"] == HISTOGRAM
        assert file["features"].attrs["name"] == "two-00000002"
        assert file["coords"].dtype == np.int64
        assert file["coords"][:].tolist() == [[0, TILE_PX * row] for row in range(9)]
        features = file["features"][:]
    opened = TileStore(tiles)
    assert np.allclose(features[3], histogram(opened.read(8)), atol=1e-6)


def histogram(tile: np.ndarray) -> np.ndarray:
    """The encoder's definition, by other means: roots of the shares of 8 x 8 x 8 colours."""
    from eosin.embeddings.extract import fit_to_square

    bins = fit_to_square(tile, 96, "bilinear").reshape(-1, 3).astype(int) * 8 // 256
    counts = np.bincount(bins @ [64, 8, 1], minlength=512)
    return np.sqrt(counts / counts.sum())


def test_each_resolution_has_its_folder_and_attributes(tmp_path: Path) -> None:
    tiles = two_resolutions(tmp_path / "tiles")
    report = run(tiles, tmp_path / "emb")
    fine, coarse = report.files
    assert fine == tmp_path / "emb" / "20x_32px_8px_overlap" / f"features_{HISTOGRAM}"
    assert coarse.parent.name == "10x_32px_8px_overlap"
    with h5py.File(fine / "deep.h5") as file:
        assert len(file["features"]) == 6
        attributes = dict(file["coords"].attrs)
    expected = {
        "patch_size": 32,
        "patch_size_level0": 64,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 8,
        "name": "deep",
        "savetodir": str(fine.parent),
        "level0_width": 4000,
        "level0_height": 3000,
    }
    assert {name: attributes[name] for name in expected} == expected
    assert (attributes["mpp"], attributes["level0_mpp"]) == (0.5, 0.25)
    with h5py.File(coarse / "deep.h5") as file:
        assert file["coords"].attrs["patch_size_level0"] == 128
        assert file["coords"][:].tolist() == [[48 * 6, 96], [48 * 7, 96]]


@pytest.mark.parametrize(
    ("mpp", "times"),
    [(0.12, 80), (0.18, 60), (0.25, 40), (0.499, 20), (1.0, 10), (2.0, 5), (4.0, 2.5)],
)
def test_magnifications_are_named_as_trident_does(mpp: float, times: float) -> None:
    assert magnification(mpp) == times


def test_finished_slides_are_skipped_and_new_ones_added(tiles: Path, tmp_path: Path) -> None:
    run(tiles, tmp_path / "emb")
    folder = tmp_path / "emb" / FOLDER
    before = (folder / "one-00000001.h5").stat()
    (folder / "two-00000002.h5").unlink()
    assert run(tiles, tmp_path / "emb").done == 9
    add_slide(tiles, "new-00000003", 4, seed=7)
    store.finish(tiles)
    assert run(tiles, tmp_path / "emb").done == 4
    assert (folder / "one-00000001.h5").stat().st_mtime_ns == before.st_mtime_ns
    assert json.loads((folder / "embed.json").read_text())["slides"] == 3
    assert run(tiles, tmp_path / "emb").done == 0


def test_a_slide_that_was_tiled_anew_is_embedded_anew(tiles: Path, tmp_path: Path) -> None:
    run(tiles, tmp_path / "emb")
    add_slide(tiles, "one-00000001", 6, seed=9)
    store.finish(tiles)
    assert run(tiles, tmp_path / "emb").done == 6


def test_the_limit_keeps_slides_whole(tiles: Path, tmp_path: Path) -> None:
    assert run(tiles, tmp_path / "one", limit=5).embeddings == 5
    assert run(tiles, tmp_path / "two", limit=6).embeddings == 14


def test_slides_of_several_stores_and_of_one_name(tiles: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", {"three-00000003": 2})
    assert run((tiles, other), tmp_path / "emb").embeddings == 16
    again = make_store(tmp_path / "again", {"one-00000001": 2})
    with pytest.raises(InputError, match="would be that of two slides"):
        run((tiles, again), tmp_path / "emb2")


def test_slides_that_share_a_name_go_by_their_ids(tmp_path: Path) -> None:
    one = two_resolutions(tmp_path / "one")
    add_slide(one, "deep-00000008", 3)
    path = shards.rows_path(one, "deep-00000008")
    record = shards.read_record(path)
    rows = shards.read_rows(one, "deep-00000008")
    changed = SlideRecord(
        **{f: getattr(record, f) for f in SlideRecord.__slots__} | {"path": "x/deep.svs"}
    )
    shards.commit(one, changed, rows.replace_schema_metadata(None))
    store.finish(one)
    report = run(one, tmp_path / "emb")
    assert sorted(path.name for path in report.files[0].glob("*.h5")) == [
        "deep-00000008.h5",
        "deep-00000009.h5",
    ]


def test_damaged_tiles_are_left_out_and_told_again(tiles: Path, tmp_path: Path) -> None:
    shard = tiles / "shards" / "two-00000002.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    report = run(tiles, tmp_path / "emb", max_unreadable=0.1)
    assert report.exit_code == 3 and list(report.unreadable) == ["two-00000002/0_0_500nm"]
    found = eosin.embeddings.read(report.files[0])
    assert len(found) == 13 == report.embeddings
    again = run(tiles, tmp_path / "emb", max_unreadable=0.1)
    assert (again.done, again.exit_code, again.embeddings) == (0, 3, 13)


def test_other_settings_and_files_of_others_are_refused(tiles: Path, tmp_path: Path) -> None:
    one, two = (export_small(tmp_path / f"{n}" / "same", seed=n) for n in (1, 2))
    report = run(tiles, tmp_path / "emb", one)
    with pytest.raises(InputError, match=r"holds features of other settings: weights was"):
        run(tiles, tmp_path / "emb", two)
    with h5py.File(report.files[0] / "one-00000001.h5", "w") as file:
        file["features"] = np.zeros((5, 3), np.float32)
    with pytest.raises(InputError, match="was not written by `eosin embed`"):
        run(tiles, tmp_path / "emb", one)


def test_images_without_places_are_refused(tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", 3)
    with pytest.raises(UsageError, match=r"for tile stores, .* is a folder of images"):
        run(images, tmp_path / "emb")


def test_a_file_that_does_not_fit_on_the_disk_is_one_error(tiles: Path, tmp_path: Path) -> None:
    run(tiles, tmp_path / "whole")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # What HDF5 writes itself would bring the process down.
            resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
            run(tiles, tmp_path / "emb")
        except Interrupted as error:
            code = 4 if "cannot be written" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 4
    assert [path.name for path in (tmp_path / "emb").rglob("*.h5")] == []
    assert run(tiles, tmp_path / "emb").done == 14


def test_a_kill_leaves_whole_files(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("eosin.embeddings.trident._coords", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tiles, tmp_path / "emb")
    assert not list((tmp_path / "emb").rglob("*.h5"))
    report: EmbedReport = run(tiles, tmp_path / "emb")
    assert report.done == 14

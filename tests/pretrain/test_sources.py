"""Tiles from each kind of source, and one clear error for whatever cannot be one."""

import os
import pickle
import struct
import zlib

import h5py
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from eosin.errors import InputError
from eosin.pretrain.sources import open_source
from eosin.slides.quality import Quality
from eosin.store import shards
from eosin.store import tile_store as store
from eosin.store.export import Config, export
from eosin.store.records import SlideRecord
from eosin.store.shards import TilePlace

NAMES = ("b.png", "a/z.PNG", "a/b/c.bmp", "c d/ä.tif", "a.webp")


def noise(count, side_px=24, seed=0):
    return np.random.default_rng(seed).integers(
        0, 256, (count, side_px, side_px, 3), dtype=np.uint8
    )


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Five images at three depths, and files that are none."""
    root = tmp_path / "images"
    for name, image in zip(NAMES, noise(5), strict=True):
        save(root / name, image, **({"lossless": True} if name.endswith("webp") else {}))
    (root / "notes.txt").write_text("no image")
    (root / "a" / "._z.png").write_bytes(b"left by another system")
    return root


def write_h5(path, images, key="x"):
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=images, chunks=(1, *images.shape[1:]))
    return path


def test_a_folder_is_read_at_any_depth_in_the_order_of_its_paths(folder):
    source = open_source(folder)
    by_name = dict(zip(NAMES, noise(5), strict=True))
    assert len(source) == 5
    for index, name in enumerate(sorted(by_name, key=os.fsencode)):
        np.testing.assert_array_equal(source.read(index), by_name[name])


def test_a_folder_is_read_through_links_but_not_round_in_a_circle(folder, tmp_path):
    save(tmp_path / "elsewhere" / "linked.png", noise(1)[0])
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "up").symlink_to(folder)
    assert len(open_source(folder)) == 6


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    grey = noise(1)[0, ..., :1].repeat(3, axis=2)
    Image.fromarray(grey).convert(mode).save(tmp_path / "image.png")
    tile = open_source(tmp_path).read(0)
    assert tile.shape == (24, 24, 3) and tile.dtype == np.uint8
    assert (tile == tile[..., :1]).all()
    if mode in ("L", "LA", "RGBA"):
        np.testing.assert_array_equal(tile, grey)


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    save(tmp_path / "image.JPEG", noise(1)[0], quality=80)
    expected = np.array(Image.open(tmp_path / "image.JPEG"))
    np.testing.assert_array_equal(open_source(tmp_path).read(0), expected)


def truncated_png(path):
    save(path, noise(1)[0])
    path.write_bytes(path.read_bytes()[:200])


def empty_file(path):
    path.write_bytes(b"")


def deep_png(path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)


def huge_png(path):
    """A header that claims 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


@pytest.mark.parametrize("spoil", [truncated_png, empty_file, deep_png, huge_png])
def test_an_unreadable_image_is_named(tmp_path, spoil):
    spoil(tmp_path / "bad.png")
    source = open_source(tmp_path)
    with pytest.raises(InputError, match=r"bad\.png"):
        source.read(0)


@pytest.mark.parametrize("key", ["x", "images", "imgs"])
def test_hdf5_is_read_under_each_key_also_after_pickling(tmp_path, key):
    source = open_source(write_h5(tmp_path / "tiles.h5", noise(7), key))
    assert len(source) == 7
    np.testing.assert_array_equal(source.read(6), noise(7)[6])
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(np.int64(2)), noise(7)[2])
    assert copy.fingerprint == source.fingerprint


def test_hdf5_is_reopened_in_a_forked_process(tmp_path):
    source = open_source(write_h5(tmp_path / "tiles.h5", noise(7)))
    source.read(0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, source.read(3).tobytes()[:64])
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == noise(7)[3].tobytes()[:64]


def test_a_damaged_hdf5_image_is_named(tmp_path):
    path = tmp_path / "tiles.h5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("x", data=noise(40), chunks=(1, 24, 24, 3), compression="gzip")
        place = images.id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"tiles\.h5, image 1,"):
        open_source(path).read(1)


@pytest.fixture
def tile_store(tmp_path):
    """A tile store of three tiles."""
    folder = tmp_path / "store"
    store.create(folder, tile_px=24, mpps=[0.5], settings={})
    with shards.writing_shard(folder, "slide") as shard:
        for row, tile in enumerate(noise(3)):
            place = TilePlace(0, 24 * row, 0.5, 0.5, 1.0)
            shard.add(place, Quality(1.0, 0.0, 0.0, 0.0), simplejpeg.encode_jpeg(tile))
    rows = shard.rows()
    size = shards.shard_path(folder, "slide").stat().st_size
    digest = shards.hash_rows(rows)
    record = SlideRecord(
        slide_id="slide", path="slide.svs", tiles=3, bytes=size, rows_sha256=digest
    )
    shards.commit(folder, record, rows)
    store.finish(folder)
    return folder


def test_a_tile_store_is_read(tile_store):
    source = open_source(tile_store)
    assert len(source) == 3
    for row, tile in enumerate(noise(3)):
        expected = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(tile))
        np.testing.assert_array_equal(source.read(row), expected)


def test_an_exported_store_is_read_by_path_and_by_url(tile_store, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"memory://{tmp_path.name}/tiles"
    for out in (str(tmp_path / "out"), url):
        export(Config(store=str(tile_store), out=out))
    stored = open_source(tile_store)
    expected = sorted(stored.read(index).tobytes() for index in range(3))
    fingerprints = set()
    for place in (tmp_path / "out", f"file://{tmp_path}/out", url):
        source = pickle.loads(pickle.dumps(open_source(place)))
        assert sorted(source.read(index).tobytes() for index in range(len(source))) == expected
        fingerprints.add(source.fingerprint)
    assert len(fingerprints) == 1
    for nowhere in ("memory://nowhere", "nosuch://bucket/tiles"):
        with pytest.raises(InputError, match=nowhere):
            open_source(nowhere)


def test_patch_camelyon_is_read(shared_data):
    path = shared_data / "pcam" / "camelyonpatch_level_2_split_test_x.h5"
    source = open_source(path)
    with h5py.File(path) as file:
        assert len(source) == len(file["x"])
        np.testing.assert_array_equal(source.read(5), file["x"][5])


def test_nested_real_images_are_read(shared_data):
    source = open_source(str(shared_data / "lc25000"))
    assert len(source) == 3500
    assert source.read(3499).shape == (224, 224, 3)


def test_the_fingerprint_follows_the_content(folder, tmp_path):
    before = open_source(folder).fingerprint
    assert open_source(folder).fingerprint == before
    save(folder / "new.png", noise(1)[0])
    assert open_source(folder).fingerprint != before
    first = open_source(write_h5(tmp_path / "a.h5", noise(3))).fingerprint
    second = open_source(write_h5(tmp_path / "b.h5", noise(3, seed=1))).fingerprint
    assert first != second


def missing(root):
    return root / "nowhere"


def no_images(root):
    (root / "readme.txt").write_text("empty")
    return root


def text_file(root):
    (root / "data.txt").write_text("text")
    return root / "data.txt"


def only_hdf5(root):
    write_h5(root / "part_x.h5", noise(2))
    return root


def wrong_key(root):
    return write_h5(root / "data.h5", noise(2), "pixels")


def wrong_shape(root):
    return write_h5(root / "data.h5", noise(2)[..., :1], "x")


def no_tiles(root):
    with h5py.File(root / "data.h5", "w") as file:
        file.create_dataset("x", shape=(0, 8, 8, 3), dtype=np.uint8)
    return root / "data.h5"


def broken_hdf5(root):
    path = write_h5(root / "data.h5", noise(2))
    path.write_bytes(path.read_bytes()[:600])
    return path


@pytest.mark.parametrize(
    ("make", "mend"),
    [
        (missing, "does not exist; give a tile store"),
        (no_images, "holds no images .* make one of slides with `eosin tile`"),
        (text_file, "is not an HDF5 file; give"),
        (only_hdf5, r"but HDF5 files; name those .*part_x\.h5"),
        (wrong_key, r"under the key x or images or imgs; it has pixels uint8\[2, 24, 24, 3\]"),
        (wrong_shape, r"it has x uint8\[2, 24, 24, 1\]"),
        (no_tiles, "holds no tiles"),
        (broken_hdf5, "cannot be read"),
    ],
)
def test_what_is_no_source_is_one_clear_error(tmp_path, make, mend):
    path = make(tmp_path)
    with pytest.raises(InputError, match=mend) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}")
    assert "\n" not in str(caught.value)

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.slides.tiff_directories import check_complete


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["generic", "svs", "ome", "philips"])
def test_a_whole_file_passes_and_no_file_without_its_last_value(
    write_slide: Callable[..., Path], kind: str, byteorder: str, bigtiff: bool
) -> None:
    path = write_slide(
        size_px=(200, 150), levels=3, kind=kind, bigtiff=bigtiff, byteorder=byteorder
    )
    check_complete(path)
    with tifffile.TiffFile(path) as tiff:
        pages = [*tiff.pages, *(tiff.pages[0].pages or ())]
        ends = [tag.valueoffset + tag.valuebytecount for page in pages for tag in page.tags]
    content = path.read_bytes()
    path.write_bytes(content[: max(ends)])
    check_complete(path)
    path.write_bytes(content[: max(ends) - 1])
    with pytest.raises(InputError, match=r"a\.tif is truncated"):
        check_complete(path)


def test_every_cut_through_the_header_is_seen(write_slide: Callable[..., Path]) -> None:
    path = write_slide(size_px=(64, 64), levels=2, kind="ome", tile_px=64)
    with tifffile.TiffFile(path) as tiff:
        pages = [*tiff.pages, *tiff.pages[0].pages]
        end = max(tag.valueoffset + tag.valuebytecount for page in pages for tag in page.tags)
    for length in reversed(range(4, end)):
        os.truncate(path, length)
        with pytest.raises(InputError):
            check_complete(path)


@pytest.mark.parametrize("page", [(0,), (0, 0), (0, 1)])
def test_values_of_every_directory_must_lie_in_the_file(
    write_slide: Callable[..., Path], page: tuple[int, ...]
) -> None:
    path = write_slide(size_px=(600, 400), levels=3, kind="ome", tile_px=64)
    with tifffile.TiffFile(path) as tiff:
        where = tiff.pages[0] if len(page) == 1 else tiff.pages[0].pages[page[1]]
        tag = where.tags["TileOffsets"]
    content = bytearray(path.read_bytes())
    for place, is_inside in ((len(content) - 4 * tag.count, True), (len(content) - 5, False)):
        content[tag.offset + 8 : tag.offset + 12] = place.to_bytes(4, "little")
        path.write_bytes(content)
        if is_inside:
            check_complete(path)
        else:
            with pytest.raises(InputError):
                check_complete(path)


def test_private_tags_may_point_anywhere(write_slide: Callable[..., Path]) -> None:
    path = write_slide(size_px=(64, 64), levels=1)
    entry, private = struct.pack("<HHI", 305, 2, 12), struct.pack("<HHI", 60000, 2, 10**9)
    content = path.read_bytes()
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, private))
    check_complete(path)
    path.write_bytes(content.replace(entry, struct.pack("<HHI", 305, 2, 10**9)))
    with pytest.raises(InputError):
        check_complete(path)


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IHI", 8, 0, 8))
    check_complete(tmp_path / "a.tif")


@settings(deadline=None)
@given(content=st.binary(max_size=100), start=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0"]))
def test_garbage_is_truncated_or_no_tiff(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.tif"
    path.write_bytes(start + content)
    try:
        check_complete(path)
    except InputError as error:
        assert "garbage.tif" in str(error)

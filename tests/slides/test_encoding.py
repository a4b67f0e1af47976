import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eosin.slides.encoding import (
    DEFAULT_QUALITY,
    SUBSAMPLINGS,
    JpegEncoding,
    encode,
    of_quality,
    psnr_db,
    read_encoding,
)
from eosin.slides.reader import open_slide

RGB = npt.NDArray[np.uint8]
_STEPS = st.lists(st.integers(1, 255), min_size=64, max_size=64).map(tuple)
_COLOURS = [{"subsampling": "444"}, {"subsampling": "422"}, {"subsampling": "420"}]


def _decode(jpeg: bytes) -> RGB:
    return simplejpeg.decode_jpeg(jpeg)


def _save(tile: RGB, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", **options)
    return file.getvalue()


def _noise(edge: int = 32) -> RGB:
    return np.random.default_rng(0).integers(0, 256, (edge, edge, 3)).astype(np.uint8)


@settings(max_examples=50, deadline=None)
@given(
    tables=st.lists(_STEPS, min_size=1, max_size=2, unique=True).map(tuple),
    subsampling=st.sampled_from(SUBSAMPLINGS),
    is_rgb=st.booleans(),
)
def test_an_encoding_can_be_read_off_what_it_encodes(
    tables: tuple[tuple[int, ...], ...], subsampling: str, is_rgb: bool
) -> None:
    if is_rgb:
        tables, subsampling = tables[:1], "4:4:4"
    encoding = JpegEncoding(tables, subsampling, is_rgb)
    assert read_encoding(encode(_noise(), encoding)) == encoding


@pytest.mark.parametrize("quality", [1, 30, 75, DEFAULT_QUALITY, 100])
def test_encodings_of_a_quality_are_libjpegs(quality: int) -> None:
    tile = _noise()
    for number, subsampling in enumerate(SUBSAMPLINGS):
        encoding = of_quality(quality, subsampling)
        expected = _save(tile, quality=quality, subsampling=number)
        assert encode(tile, encoding) == expected
        assert read_encoding(expected) == encoding
        assert str(encoding) == f"JPEG, quality {quality}, {subsampling}"


def test_encodings_of_no_quality_and_of_rgb_say_so() -> None:
    tables = ((3,) * 64, (5,) * 64)
    assert str(JpegEncoding(tables, "4:2:0")) == "JPEG, its own tables, 4:2:0"
    assert str(JpegEncoding(tables[:1], "4:4:4", is_rgb=True)) == "JPEG, its own tables, RGB"


@pytest.mark.parametrize("options", [*_COLOURS, {"is_rgb": True}], ids=str)
@pytest.mark.parametrize("shared_tables", [False, True], ids=["own-tables", "shared-tables"])
def test_a_slides_own_encoding_loses_next_to_nothing_of_aligned_tiles(
    write_slide: Callable[..., Path],
    tissue_mosaic: Callable[[int, int], RGB],
    options: dict[str, object],
    shared_tables: bool,
) -> None:
    path = write_slide(
        image=tissue_mosaic(1024, 1024),
        mpp=0.25,
        tile_px=256,
        quality=80,
        levels=1,
        kind="svs",
        shared_tables=shared_tables,
        **options,
    )
    with open_slide(path) as slide:
        encoding = slide.encoding(slide.reading(0.25))
        assert encoding is not None
        if options.get("is_rgb"):
            assert encoding.is_rgb
        else:
            assert str(encoding) == f"JPEG, quality 80, {':'.join(str(options['subsampling']))}"
        aligned, unaligned = slide.read(256, 272, 512, 0.25), slide.read(263, 277, 512, 0.25)
    own = encode(aligned, encoding)
    usual = encode(aligned, of_quality(90))
    assert read_encoding(own) == encoding
    assert psnr_db(_decode(own), aligned) > 50
    assert psnr_db(_decode(own), aligned) > psnr_db(_decode(usual), aligned) + 3
    assert psnr_db(_decode(own), aligned) > (
        psnr_db(_decode(encode(unaligned, of_quality(90))), unaligned) + 10
    )
    if not encoding.is_rgb:
        assert len(own) < 0.85 * len(usual)


def test_aperios_rgb_stays_rgb(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        encoding = slide.encoding(slide.reading(0.5))
        tile = slide.read(960, 960, 256, 0.5)
    assert encoding is not None and encoding.is_rgb
    jpeg = encode(tile, encoding)
    assert simplejpeg.decode_jpeg_header(jpeg)[2] == "RGB"
    assert psnr_db(_decode(jpeg), tile) > 50
    # Any reader that respects the standard marker sees the same.
    assert psnr_db(np.asarray(Image.open(io.BytesIO(jpeg))), tile) > 50


@pytest.mark.parametrize("subsampling", ["411", "440"])
def test_unusual_subsampling_becomes_none(subsampling: str) -> None:
    jpeg = simplejpeg.encode_jpeg(_noise(64), 80, "RGB", subsampling)
    assert read_encoding(jpeg) == of_quality(80, "4:4:4")


def test_what_is_no_encoding_of_tiles() -> None:
    grey = io.BytesIO()
    Image.new("L", (16, 16)).save(grey, "JPEG")
    cmyk = io.BytesIO()
    Image.new("CMYK", (16, 16)).save(cmyk, "JPEG")
    png = io.BytesIO()
    Image.new("RGB", (16, 16)).save(png, "PNG")
    for content in (grey.getvalue(), cmyk.getvalue(), png.getvalue(), b"", b"\xff\xd8", b"x" * 99):
        assert read_encoding(content) is None


def test_a_forged_size_is_no_encoding() -> None:
    jpeg = encode(_noise(), of_quality(80))
    start = jpeg.index(b"\xff\xc0") + 5
    assert read_encoding(jpeg[:start] + b"\xff\xff\xff\xff" + jpeg[start + 4 :]) is None


def test_tables_of_16_bits_are_not_kept() -> None:
    jpeg = encode(_noise(), JpegEncoding(((255,) * 64,), "4:4:4"))
    start = jpeg.index(b"\xff\xdb")
    wide = b"\xff\xdb" + (2 + 129).to_bytes(2, "big") + b"\x10" + (256).to_bytes(2, "big") * 64
    assert read_encoding(jpeg[:start] + wide + jpeg[start + 2 + 67 :]) is None


def test_every_cut_through_a_header_is_none_or_the_encoding() -> None:
    encoding = of_quality(80, "4:2:0")
    jpeg = encode(_noise(), encoding)
    for length in range(len(jpeg)):
        assert read_encoding(jpeg[:length]) in (None, encoding)


@given(seed=st.integers(0, 2**32 - 1), step=st.integers(1, 100))
def test_psnr(seed: int, step: int) -> None:
    image = np.random.default_rng(seed).integers(0, 150, (8, 9, 3)).astype(np.uint8)
    assert psnr_db(image, image) == 100
    other = (image + step).astype(np.uint8)
    assert psnr_db(image, other) == pytest.approx(20 * np.log10(255 / step))
    assert psnr_db(other, image) == psnr_db(image, other)

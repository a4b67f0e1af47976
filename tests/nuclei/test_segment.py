"""`eosin segment` on images and slides, with a network that finds whatever is dark."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from eosin import cli
from eosin.encoders import build_encoder
from eosin.errors import InputError, UsageError
from eosin.nuclei import segment as segment_module
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.model_files import save_segmenter
from eosin.nuclei.postprocess import Segmented
from eosin.nuclei.segment import Config, segment
from eosin.nuclei.settings import Training
from tests.nuclei.discs import CLASSES, labelled

TRAINING = Training(input_px=64, width=1 / 16, overlap_px=32)


class Dark:
    """Takes the place of the network: what is dark is a nucleus, violet or blue."""

    calls = 0
    output_px = 32

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, image: np.ndarray, mpp: float) -> Segmented:
        assert mpp == 0.5
        type(self).calls += 1
        instances, count = ndimage.label(image.mean(2) < 165)
        red = ndimage.mean(image[..., 0], instances, np.arange(1, count + 1))
        types = (np.asarray(red) < 100).astype(np.int64)
        return Segmented(instances.astype(np.int32), types, np.full(count, 0.75, np.float32))


@pytest.fixture
def network(tmp_path: Path) -> Path:
    encoder = build_encoder("resnet10t", input_px=64, seed=0).eval()
    facts = {"classes": list(CLASSES), "mpp": 0.5}
    save_segmenter(HoVerNet(encoder, 2, width=1 / 16), TRAINING, facts, tmp_path / "network")
    return tmp_path / "network"


@pytest.fixture
def dark(monkeypatch: pytest.MonkeyPatch) -> type[Dark]:
    monkeypatch.setattr(Dark, "calls", 0)
    monkeypatch.setattr(segment_module, "NucleiPredictor", Dark)
    return Dark


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "discs.png"
    Image.fromarray(labelled(3, side=160, count=20).image).save(path)
    return path


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A slide of 0.5 micrometres a pixel, larger than a part of 320 pixels."""
    path = tmp_path / "slide.tif"
    pixels = labelled(5, side=700, count=260).image
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 95},
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    return path


def features(path: Path) -> list[dict]:
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    return content["features"]


def filled(path: Path, shape: tuple[int, int]) -> np.ndarray:
    # Eight times as fine, since OpenCV also fills the pixels that an outline runs through.
    mask = np.zeros((8 * shape[0], 8 * shape[1]), np.uint8)
    for feature in features(path):
        geometry = feature["geometry"]
        several = geometry["type"] == "MultiPolygon"
        for rings in geometry["coordinates"] if several else [geometry["coordinates"]]:
            cv2.fillPoly(mask, [np.round(8 * np.array(rings[0])).astype(np.int32)], 1)
    return mask[4::8, 4::8]


def test_an_image_gives_outlines_a_map_and_an_overlay(
    network: Path, dark: type[Dark], picture: Path, tmp_path: Path
) -> None:
    written = segment(
        Config(
            network=network,
            image=picture,
            out=tmp_path / "out.geojson",
            map=tmp_path / "map.tif",
            overlay=tmp_path / "overlay.png",
        )
    )
    image = np.asarray(Image.open(picture))
    instances = tifffile.imread(tmp_path / "map.tif")
    assert instances.shape == image.shape[:2] and instances.max() == written.nuclei
    found = features(tmp_path / "out.geojson")
    assert len(found) == written.nuclei > 10
    names = {each["properties"]["classification"]["name"] for each in found}
    assert names == set(CLASSES)
    mask = filled(tmp_path / "out.geojson", image.shape[:2])
    both = (mask > 0) & (instances > 0)
    assert both.sum() > 0.99 * ((mask > 0) | (instances > 0)).sum()
    overlay = np.asarray(Image.open(tmp_path / "overlay.png"))
    changed = (overlay != image).any(2)
    assert 0.01 < changed.mean() < 0.5 and (instances[changed] > 0).all()


def test_an_image_of_another_resolution_gives_its_own_pixels(
    network: Path, dark: type[Dark], picture: Path, tmp_path: Path
) -> None:
    same = segment(Config(network=network, image=picture, out=tmp_path / "a.geojson"))
    big = np.asarray(Image.open(picture).resize((320, 320), Image.Resampling.NEAREST))
    Image.fromarray(big).save(tmp_path / "big.png")
    other = segment(
        Config(network=network, image=tmp_path / "big.png", out=tmp_path / "b.geojson", mpp=0.25)
    )
    assert other.nuclei == same.nuclei
    whole = filled(tmp_path / "b.geojson", (320, 320))[::2, ::2]
    assert (whole == filled(tmp_path / "a.geojson", (160, 160))).mean() > 0.95


def slide_config(network: Path, slide: Path, out: Path, **changes) -> Config:
    return Config(
        **{"network": network, "image": slide, "out": out, "tissue": "all", "mpp": 0.5, **changes}
    )


def test_a_slide_in_parts_gives_what_it_gives_whole(
    network: Path, dark: type[Dark], slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "slide.geojson"
    written = segment(slide_config(network, slide, out, map=tmp_path / "map.tif"))
    assert dark.calls == 9
    pixels = tifffile.imread(slide)
    whole = Dark()(pixels, 0.5)
    instances = tifffile.imread(tmp_path / "map.tif")
    assert np.array_equal(instances > 0, whole.instances > 0)
    assert written.nuclei == len(features(out)) == len(whole)
    assert not out.with_name("slide.geojson.parts").exists()


def test_a_slide_that_is_coarser_in_its_file_is_given_in_level_0(
    network: Path, dark: type[Dark], slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.geojson"
    segment(slide_config(network, slide, out, mpp=0.25))
    points = np.array(
        [
            point
            for each in features(out)
            for ring in each["geometry"]["coordinates"]
            for point in ring
        ]
    )
    assert 600 < points.max() <= 700


def test_a_slide_that_does_not_fit_the_network_is_named(
    network: Path, dark: type[Dark], slide: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{slide.name} .* slides are not enlarged.* --mpp"):
        segment(slide_config(network, slide, tmp_path / "out.geojson", mpp=1.0))
    bare = tmp_path / "bare.tiff"
    tifffile.imwrite(bare, tifffile.imread(slide), tile=(128, 128), photometric="rgb")
    with pytest.raises(InputError, match=r"bare\.tiff has no usable mpp.* --mpp"):
        segment(slide_config(network, bare, tmp_path / "out.geojson", mpp=None))
    assert dark.calls == 0 and not list(tmp_path.glob("out*"))


def test_killed_and_started_again_it_computes_no_part_twice(
    network: Path, dark: type[Dark], slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "out.geojson", Dark.__call__
    segment(slide_config(network, slide, tmp_path / "whole.geojson"))
    dark.calls = 0

    def killed(self: Dark, image: np.ndarray, mpp: float) -> Segmented:
        if dark.calls == 4:
            raise KeyboardInterrupt
        return calls(self, image, mpp)

    monkeypatch.setattr(Dark, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        segment(slide_config(network, slide, out))
    assert not out.exists() and dark.calls == 4
    monkeypatch.setattr(Dark, "__call__", calls)
    segment(slide_config(network, slide, out))
    assert dark.calls == 9
    assert out.read_bytes() == (tmp_path / "whole.geojson").read_bytes()


def test_only_tissue_is_looked_at(
    network: Path, dark: type[Dark], slide: Path, tmp_path: Path
) -> None:
    pixels = tifffile.imread(slide)
    pixels[:, 330:] = 245
    tifffile.imwrite(
        tmp_path / "half.tif",
        pixels,
        tile=(128, 128),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    config = slide_config(network, tmp_path / "half.tif", tmp_path / "o.geojson", tissue="otsu")
    segment(config)
    assert 3 <= dark.calls <= 6


def test_what_cannot_be_is_said(
    network: Path, slide: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.geojson"
    with pytest.raises(InputError, match="holds no trained segmentation network"):
        segment(Config(network=tmp_path, image=picture, out=out))
    with pytest.raises(InputError, match="no image at"):
        segment(Config(network=network, image=tmp_path / "absent.png", out=out))
    for wrong in (
        {"out": tmp_path / "o.csv"},
        {"map": tmp_path / "m.png"},
        {"overlay": tmp_path / "o.tif"},
        {"mpp": 0.0},
    ):
        with pytest.raises(UsageError):
            Config(**{"network": network, "image": picture, "out": out, **wrong})
    assert cli.main(["segment", str(network), str(tmp_path / "none.svs"), "-o", str(out)]) == 1
    assert "no slide at" in capsys.readouterr().err
    assert not out.exists()


def test_the_network_itself_runs(network: Path, picture: Path, tmp_path: Path) -> None:
    # Its weights are random, so nothing is promised of what it finds.
    words = ["segment", str(network), str(picture), "-o", str(tmp_path / "o.geojson"), "--json"]
    assert cli.main(words) == 0
    assert isinstance(features(tmp_path / "o.geojson"), list)

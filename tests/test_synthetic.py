"""The drawn slides: what they hold, what colour says about them, and that other tools read them."""

import csv
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eosin.errors import InputError, UsageError
from eosin.slides.tissue import find_tissue
from eosin.synthetic import (
    CLASSES,
    SlideSpec,
    SyntheticSlide,
    render_slide,
    write_labelled,
    write_slide,
    write_slides,
)

SPEC = SlideSpec(seed=4, width_px=1300, height_px=1100)


@pytest.fixture(scope="module")
def slide() -> SyntheticSlide:
    return render_slide(SPEC)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    write_labelled(folder, slides=8, tiles_per_class=40, tile_px=128)
    return folder


def rows_of(labelled: Path) -> list[dict[str, str]]:
    with open(labelled / "groups.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def test_equal_specs_give_equal_pixels_and_other_seeds_do_not(slide: SyntheticSlide) -> None:
    again = render_slide(SPEC)
    assert np.array_equal(slide.rgb, again.rgb)
    assert np.array_equal(slide.class_map, again.class_map)
    assert np.array_equal(slide.instance_map, again.instance_map)
    other = render_slide(SlideSpec(seed=5, width_px=1300, height_px=1100))
    assert (slide.class_map != other.class_map).mean() > 0.2


def test_every_class_covers_a_fair_share_of_the_tissue(slide: SyntheticSlide) -> None:
    assert slide.rgb.shape == (1100, 1300, 3) and slide.rgb.dtype == np.uint8
    areas = np.bincount(slide.class_map.ravel(), minlength=len(CLASSES) + 1)
    assert len(areas) == len(CLASSES) + 1
    assert 0.4 < areas[1:].sum() / areas.sum() < 0.8
    assert areas[1:].min() > 0.08 * areas[1:].sum()


def test_nuclei_are_numbered_lie_in_tissue_and_are_dark(slide: SyntheticSlide) -> None:
    numbers, areas = np.unique(slide.instance_map, return_counts=True)
    assert np.array_equal(numbers, np.arange(len(numbers))) and len(numbers) > 1000
    areas_um2 = areas[1:] * slide.mpp**2
    assert 15 < np.median(areas_um2) < 60 and areas_um2.max() < 250
    nucleus = slide.instance_map > 0
    assert (slide.class_map[nucleus] > 0).mean() > 0.98
    between = (slide.class_map > 0) & ~nucleus
    assert slide.rgb[nucleus].mean() < slide.rgb[between].mean() - 20


def test_classes_have_the_same_colours_within_a_slide(slide: SyntheticSlide) -> None:
    means = [slide.rgb[slide.class_map == n].mean(0) for n in range(1, len(CLASSES) + 1)]
    assert np.ptp(means, axis=0).max() < 16


def test_lengths_follow_the_mpp(slide: SyntheticSlide) -> None:
    coarse = render_slide(SlideSpec(seed=4, width_px=650, height_px=550, mpp=1.0))
    fine_um2, coarse_um2 = (
        np.median(np.bincount(one.instance_map.ravel())[1:]) * one.mpp**2 for one in (slide, coarse)
    )
    assert 0.6 < fine_um2 / coarse_um2 < 1.7


@pytest.mark.parametrize("seed", range(4, 10))
def test_tissue_stands_out_from_the_glass(seed: int) -> None:
    slide = render_slide(SlideSpec(seed=seed, width_px=640, height_px=640))
    size = (40, 40)
    thumbnail = np.asarray(cv2.resize(slide.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    share = cv2.resize((slide.class_map > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    found, truth = find_tissue(thumbnail, 8.0), share > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert slide.rgb[slide.class_map == 0].mean() > 215


def test_openslide_reads_the_pyramid_and_its_mpp(slide: SyntheticSlide, tmp_path: Path) -> None:
    path = tmp_path / "one.tiff"
    write_slide(path, slide)
    first = path.read_bytes()
    with openslide.OpenSlide(path) as opened:
        assert opened.level_dimensions == ((1300, 1100), (650, 550), (325, 275))
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        assert opened.properties["openslide.level[0].tile-width"] == "256"
        read = np.asarray(opened.read_region((300, 200), 0, (400, 500)).convert("RGB"))
        half = np.asarray(opened.read_region((0, 0), 1, (650, 550)).convert("RGB"))
    difference = np.abs(read.astype(int) - slide.rgb[200:700, 300:700])
    assert difference.mean() < 6
    expected = cv2.resize(slide.rgb, (650, 550), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(half - expected).mean() < 6
    write_slide(path, slide)
    assert path.read_bytes() == first


def test_slides_differ_in_stain_and_finished_ones_are_kept(tmp_path: Path) -> None:
    paths = write_slides(tmp_path, count=3, seed=1, size_px=700)
    assert len(set(paths)) == 3 and all(path.is_file() for path in paths)
    before = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    assert write_slides(tmp_path, count=3, seed=1, size_px=700) == paths
    after = [path.stat().st_mtime_ns for path in paths]
    assert after[0] == before[0] and after[1] != before[1] and after[2] == before[2]
    colours = []
    for path in paths:
        rgb = np.asarray(openslide.OpenSlide(path).read_region((0, 0), 0, (700, 700)))[..., :3]
        colours.append(rgb[(rgb < 200).any(-1)].mean(0))
    assert np.ptp(colours, axis=0).max() > 8


def test_labelled_tiles_are_grouped_by_slide_and_resumed(labelled: Path, tmp_path: Path) -> None:
    rows = rows_of(labelled)
    assert sorted(row["file"] for row in rows) == sorted(
        str(path.relative_to(labelled)) for path in labelled.glob("*/*.jpg")
    )
    for name in CLASSES:
        slides = [row["slide"] for row in rows if row["file"].startswith(f"{name}/")]
        assert len(slides) == 40 and {slides.count(slide) for slide in slides} == {5}
    unlabelled = write_slides(tmp_path, count=1, size_px=512)[0].stem
    assert not any(unlabelled.startswith(row["slide"] + "_") for row in rows)
    victim = labelled / rows[0]["file"]
    content = victim.read_bytes()
    write_labelled(labelled, slides=8, tiles_per_class=40, tile_px=128)
    assert victim.read_bytes() == content
    with pytest.raises(InputError, match="other settings"):
        write_labelled(labelled, slides=8, tiles_per_class=40, tile_px=96)


def test_colour_alone_does_not_tell_the_class_on_other_slides(labelled: Path) -> None:
    rows = rows_of(labelled)
    slides = np.array([row["slide"] for row in rows])
    classes = np.array([CLASSES.index(row["file"].split("/")[0]) for row in rows])
    histograms = np.stack([histogram(labelled / row["file"]) for row in rows])
    held_out = np.isin(slides, np.unique(slides)[::2])
    for probe in (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        KNeighborsClassifier(10),
    ):
        probe.fit(histograms[~held_out], classes[~held_out])
        assert probe.score(histograms[held_out], classes[held_out]) <= 0.70


def histogram(path: Path) -> np.ndarray:
    """The joint 8x8x8 histogram of a tile's colours, square roots taken."""
    image = np.asarray(cv2.imread(str(path)), np.uint8)
    counts = cv2.calcHist([image], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    return np.sqrt(counts.ravel() / counts.sum())


def test_a_slide_without_room_for_tissue_is_refused() -> None:
    with pytest.raises(UsageError, match="250 µm"):
        SlideSpec(seed=0, width_px=400, height_px=2048)

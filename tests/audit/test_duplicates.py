import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eosin.audit import calibration, duplicates, thumbnails
from eosin.audit.duplicates import Described, Pair, Search
from eosin.audit.thumbnails import LeftOut, read_thumbnails
from eosin.datasets import folder
from eosin.datasets._base import Options
from eosin.errors import InputError
from eosin.progress import Bar

from .conftest import Draw, Picture


class Pictures:
    """Images in memory; None cannot be read."""

    def __init__(self, images: list[Picture | None]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Picture:
        image = self.images[index]
        if image is None:
            raise InputError(f"image {index} is damaged")
        return image


def look(images: list[Picture | None], at_once: int = 100) -> tuple[list[Described], LeftOut]:
    left_out = LeftOut(near_constant=[], unreadable={})
    with Bar("reading", len(images), "images", is_hidden=True) as bar:
        found = [
            duplicates.describe(part)
            for part in read_thumbnails(Pictures(images), bar, left_out, at_once)
        ]
    return found, left_out


def pairs_of(queries: list[Picture | None], references: list[Picture | None]) -> list[Pair]:
    search = Search(look(queries)[0][0])
    return [pair for part in look(references, 7)[0] for pair in search.against(part)]


def turned(image: Picture, degrees: float, zoom: float = 1.0, shift: float = 0.0) -> Picture:
    """Turned and zoomed, and cut from the middle so that no border shows."""
    place = cv2.getRotationMatrix2D((63.5, 63.5), degrees, zoom)
    place[:, 2] += shift
    return np.asarray(cv2.warpAffine(image, place, (128, 128), borderMode=cv2.BORDER_REFLECT))


def as_jpeg(image: Picture, quality: int) -> Picture:
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed).convert("RGB"))


def restained(image: Picture) -> Picture:
    return np.clip(image * np.array([0.85, 1.0, 1.1]) + np.array([8, -10, 4]), 0, 255).astype(
        np.uint8
    )


ALTERATIONS = {
    "same": lambda image: image,
    "jpeg": lambda image: as_jpeg(image, 40),
    "restained": restained,
    "flipped": lambda image: image[:, ::-1],
    "turned by 90 degrees": lambda image: np.rot90(image),
    "flipped and turned": lambda image: np.rot90(image[::-1], 3),
    "turned by 17 degrees": lambda image: turned(image, 17),
    "turned, zoomed and mirrored": lambda image: turned(image[::-1], -25, 1.33),
    "moved by 3 %": lambda image: turned(image, 0, 1.05, 4),
    "smaller": lambda image: cv2.resize(image, (70, 70), interpolation=cv2.INTER_AREA),
}


@pytest.mark.parametrize("how", ALTERATIONS)
def test_altered_copies_are_found_and_nothing_else(how: str, draw: Draw) -> None:
    references: list[Picture | None] = [draw(seed) for seed in range(20)]
    copies = [
        np.ascontiguousarray(ALTERATIONS[how](draw(seed))).astype(np.uint8) for seed in (3, 11, 19)
    ]
    pairs = pairs_of([draw(100), *copies, draw(101)], references)
    assert [(pair.query, pair.reference) for pair in pairs] == [(1, 3), (2, 11), (3, 19)]
    assert all(pair.correlation > 0.8 for pair in pairs)


def test_a_pair_tells_how_the_images_lie(draw: Draw) -> None:
    (plain,) = pairs_of([draw(1)], [draw(1)])
    assert plain.correlation == pytest.approx(1, abs=1e-3)
    assert plain.hash_bits == 0 and not plain.mirrored
    assert plain.turned_degrees == pytest.approx(0, abs=0.5)
    (pair,) = pairs_of([draw(1)], [turned(draw(1)[:, ::-1], 20, 1.3)])
    assert pair.mirrored
    assert pair.zoom == pytest.approx(1.3, rel=0.03)


def test_images_that_show_nothing_are_counted_and_never_called_copies(draw: Draw) -> None:
    rng = np.random.default_rng(0)
    glass: list[Picture | None] = [
        as_jpeg(np.clip(235 + rng.normal(size=(96, 96, 3)), 0, 255).astype(np.uint8), 80)
        for _ in range(4)
    ]
    found, left_out = look([*glass, draw(0), np.full((96, 96, 3), 240, np.uint8)])
    assert left_out.near_constant == [0, 1, 2, 3, 5]
    assert found[0].thumbnails.numbers.tolist() == [4]
    assert look(glass)[0] == []


def test_unreadable_images_are_named_and_the_rest_is_compared(draw: Draw) -> None:
    found, left_out = look([draw(0), None, draw(1)], at_once=2)
    assert left_out.unreadable == {1: "image 1 is damaged"}
    assert [part.thumbnails.numbers.tolist() for part in found] == [[0], [2]]


def test_a_query_with_many_copies_names_them_also_from_later_parts(draw: Draw) -> None:
    references: list[Picture | None] = [draw(seed) for seed in range(30)]
    for place in (2, 9, 16, 23, 29):
        references[place] = turned(draw(500), place)
    assert [pair.reference for pair in pairs_of([draw(500)], references)] == [2, 9, 16, 23, 29]


def test_within_one_set_each_pair_is_found_once(draw: Draw) -> None:
    images: list[Picture | None] = [draw(seed) for seed in range(10)]
    images += [np.ascontiguousarray(draw(4)[::-1])]
    pairs = calibration.find_within(Pictures(images))
    assert [(pair.query, pair.reference) for pair in pairs] == [(10, 4)]
    quality = calibration.judge(pairs, np.array(["4" if n == 10 else str(n) for n in range(11)]))
    assert (quality.true_pairs, quality.precision, quality.pair_recall) == (1, 1.0, 1.0)


def test_quality_counts_wrong_and_missing_pairs() -> None:
    def pair(query: int, reference: int) -> Pair:
        return Pair(
            query=query,
            reference=reference,
            correlation=0.9,
            turned_degrees=0,
            mirrored=False,
            zoom=1,
            hash_bits=0,
        )

    groups = np.array(["a", "a", "a", "b", "c", "c"])
    quality = calibration.judge([pair(1, 0), pair(3, 0)], groups)
    assert (quality.true_pairs, quality.found_pairs, quality.right_pairs) == (4, 2, 1)
    assert (quality.images_with_copy, quality.images_found, quality.images_accused) == (5, 2, 1)
    assert quality.precision == 0.5 and quality.pair_recall == 0.25


def test_groups_join_pairs_that_share_an_image() -> None:
    pairs = [("b", "a"), ("c", "b"), ("x", "y"), ("d", "c")]
    assert duplicates.group(pairs) == [["a", "b", "c", "d"], ["x", "y"]]


def test_real_augmented_copies_are_found_and_other_tissue_is_not(shared_data: Path) -> None:
    options = Options(test_share=0.15)
    images = folder.load(shared_data / "lc25000", "test", options)
    pairs = calibration.find_within(images)
    quality = calibration.judge(pairs, images.groups)
    assert quality.images > 400 and quality.true_pairs > 400
    assert quality.precision > 0.99
    assert quality.pair_recall > 0.75
    assert quality.image_recall > 0.9


def test_thumbnails_are_of_the_largest_centred_square(draw: Draw) -> None:
    image = draw(0)
    wide = np.concatenate([image * 0, image, image * 0], axis=1)
    assert np.array_equal(thumbnails.shrink(wide), thumbnails.shrink(image))
    assert thumbnails.shrink(image[:20, :30]).shape == (64, 64)

"""Outlines are closed, do not meet themselves, cover the nuclei, and lie where the nuclei lie."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.nuclei import geojson
from eosin.nuclei.overlay import colours
from eosin.nuclei.postprocess import Segmented
from eosin.nuclei.stitching import Part

CLASSES = ("épithélium", "inflammatory", "other")


def written(folder, instances, types, **options):
    path = folder / "nuclei.geojson"
    count = geojson.write(path, instances, types, CLASSES, **options)
    assert [each.name for each in folder.iterdir()] == ["nuclei.geojson"]
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection" and len(content["features"]) == count
    return content["features"]


def rings_of(feature):
    geometry = feature["geometry"]
    assert geometry["type"] in ("Polygon", "MultiPolygon")
    if geometry["type"] == "Polygon":
        return geometry["coordinates"]
    assert all(len(polygon) == 1 for polygon in geometry["coordinates"])
    return [polygon[0] for polygon in geometry["coordinates"]]


def area(ring):
    x, y = np.array(ring).T
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def assert_simple(ring):
    """Closed, of five points or more, and no point or crossing is met twice."""
    assert len(ring) >= 5 and ring[0] == ring[-1]
    points = (np.array(ring) * 2).round().astype(int)
    steps, diagonals = [], []
    for start, end in pairwise(points):
        length = int(abs(end - start).max())
        assert length > 0 and ((end - start) % length == 0).all()  # straight or diagonal
        step = (end - start) // length
        steps += [tuple(start + place * step) for place in range(length)]
        if step.all():
            diagonals += [tuple(2 * (start + place * step) + step) for place in range(length)]
    assert len(set(steps)) == len(steps)
    assert len(set(diagonals)) == len(diagonals)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    share=st.floats(0.2, 1),
    count=st.integers(1, 3),
)
def test_outlines_of_any_shape_are_valid_and_cover_it(seed, height, width, share, count):
    generator = np.random.default_rng(seed)
    drawn = generator.random((height, width)) < share
    instances = (drawn * generator.integers(1, count + 1, (height, width))).astype(np.int32)
    found = dict(geojson.outline(instances))
    assert sorted(found) == np.unique(instances[instances > 0]).tolist()
    for number, rings in found.items():
        mask = (instances == number).astype(np.uint8)
        assert len(rings) == cv2.connectedComponents(mask, connectivity=4)[0] - 1
        filled = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
        for ring in rings:
            assert_simple(ring)
            points = (np.array(ring) * 2).round().astype(np.int32)
            cv2.fillPoly(filled, [points], 1)
        # At the middles of the pixels: all of the nucleus, and beside it nothing but holes.
        covered = filled[1::2, 1::2] > 0
        contours, _ = cv2.findContours(
            np.kron(mask, np.ones((2, 2), np.uint8)), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        without_holes = cv2.drawContours(
            np.kron(mask, np.zeros((2, 2), np.uint8)), contours, -1, 1, -1
        )
        assert covered[mask > 0].all()
        assert not covered[~(without_holes[::2, ::2] > 0)].any()


def test_a_disc_has_its_area():
    instances = cv2.circle(np.zeros((60, 60), np.int32), (30, 28), 14, 1, -1)
    [(_, [ring])] = geojson.outline(instances)
    pixels = np.count_nonzero(instances)
    assert pixels <= area(ring) < 1.02 * pixels
    x, y = np.array(ring[:-1]).T
    assert (x.min(), x.max(), y.min(), y.max()) == (16, 45, 14, 43)


def test_single_pixels_are_squares(tmp_path):
    instances = np.zeros((5, 6), np.int32)
    instances[1, 2] = 1
    instances[3, 4:6] = 2
    features = written(tmp_path, instances, np.array([0, 1]))
    one, two = ([tuple(point) for point in rings_of(each)[0]] for each in features)
    assert set(one) == {(2, 1), (3, 1), (3, 2), (2, 2)} and len(one) == 5
    assert set(two) == {(4, 3), (6, 3), (6, 4), (4, 4)} and len(two) == 5


def test_what_qupath_reads(tmp_path):
    instances = np.zeros((20, 20), np.int32)
    instances[2:8, 3:9], instances[12:18, 1:6] = 1, 2
    shares = np.array([0.75, 1], np.float32)
    features = written(tmp_path, instances, np.array([2, 0]), type_probability=shares)
    assert [each["type"] for each in features] == ["Feature", "Feature"]
    first, second = (each["properties"] for each in features)
    assert first["objectType"] == second["objectType"] == "detection"
    assert first["classification"] == {"name": "other", "color": list(colours(CLASSES)["other"])}
    assert second["classification"]["name"] == "épithélium"
    assert first["measurements"] == {"Type probability": 0.75}
    assert "measurements" not in written(tmp_path, instances, np.array([2, 0]))[0]["properties"]


def test_they_lie_in_pixels_of_level_0(tmp_path):
    instances = np.zeros((10, 10), np.int32)
    instances[2:4, 5:8] = 1
    [feature] = written(tmp_path, instances, np.array([0]), offset=(100, 50), scale=2.5)
    x, y = np.array(rings_of(feature)[0]).T
    assert (x.min(), x.max(), y.min(), y.max()) == (262.5, 270, 130, 135)


def test_pieces_of_a_nucleus_and_numbers_without_pixels(tmp_path):
    instances = np.zeros((10, 10), np.int32)
    instances[1, 1] = instances[2, 2] = instances[6:8, 6:8] = 3
    [feature] = written(tmp_path, instances, np.array([0, 0, 1]))
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert sorted(area(ring) for ring in rings_of(feature)) == [1, 1, 4]
    assert feature["properties"]["classification"]["name"] == "inflammatory"


def test_no_nuclei_are_an_empty_collection(tmp_path):
    assert written(tmp_path, np.zeros((9, 9), np.int32), np.zeros(0, np.int64)) == []


def test_parts_are_written_as_they_come_and_a_failure_leaves_nothing(tmp_path):
    instances = np.zeros((4, 4), np.int32)
    instances[1, 1] = 1
    found = Segmented(instances, np.array([1]), np.array([0.5], np.float32))
    path = tmp_path / "slide.geojson"
    parts = [Part(0, 0, found), Part(10, 20, found)]
    assert geojson.write_parts(path, iter(parts), CLASSES, scale=2) == 2
    features = json.loads(path.read_text())["features"]
    assert [min(rings_of(each)[0]) for each in features] == [[2, 2], [22, 42]]
    before = path.read_bytes()

    def failing():
        yield parts[0]
        raise OSError("the slide cannot be read on")

    with pytest.raises(OSError, match="read on"):
        geojson.write_parts(path, failing(), CLASSES)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

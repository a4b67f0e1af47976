import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.slides.regions import draw_regions, find_regions, read_regions

_SQUARE = [[100, 100], [300, 100], [300, 300], [100, 300], [100, 100]]
_HOLE = [[150, 150], [250, 150], [250, 250], [150, 250], [150, 150]]


def _polygon(*rings: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def _feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": geometry}


def _moved(ring: Sequence[Sequence[float]], x: float, y: float) -> list[list[float]]:
    return [[corner[0] + x, corner[1] + y] for corner in ring]


def _mask_of(path: Path, content: Any, shape: tuple[int, int] = (40, 60)) -> npt.NDArray[np.bool_]:
    """The mask of a slide of 600 x 400 px, at a tenth of its resolution unless told otherwise."""
    path.write_text(json.dumps(content))
    return draw_regions(read_regions(path), shape, (600, 400))


def _box(left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((40, 60), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def geojson(tmp_path: Path) -> Path:
    return tmp_path / "a.geojson"


@pytest.mark.parametrize(
    "content",
    [
        _polygon(_SQUARE),
        _feature(_polygon(_SQUARE)),
        {"type": "FeatureCollection", "features": [_feature(_polygon(_SQUARE))]},
        [_feature(_polygon(_SQUARE)), _feature(None)],
        {"type": "GeometryCollection", "geometries": [_polygon(_SQUARE)]},
        {"type": "MultiPolygon", "coordinates": [[_SQUARE]]},
        [_feature({"type": "Point", "coordinates": [1, 2]}), _feature(_polygon(_SQUARE))],
        _polygon([[x, y, 7] for x, y in _SQUARE]),
        _polygon(_SQUARE[:-1]),
        _polygon(_SQUARE[::-1]),
        {"type": "MultiPolygon", "coordinates": [[_SQUARE], []]},
    ],
)
def test_every_way_to_write_a_polygon(geojson: Path, content: Any) -> None:
    np.testing.assert_array_equal(_mask_of(geojson, content), _box(10, 10, 30, 30))


def test_a_byte_order_mark_is_passed_over(geojson: Path) -> None:
    geojson.write_text(json.dumps(_polygon(_SQUARE)), encoding="utf-8-sig")
    assert len(read_regions(geojson)) == 1


def test_holes_are_cut_out_and_islands_in_them_are_kept(geojson: Path) -> None:
    holed = _box(10, 10, 30, 30) & ~_box(15, 15, 25, 25)
    np.testing.assert_array_equal(_mask_of(geojson, _polygon(_SQUARE, _HOLE)), holed)
    island = _polygon([[150, 150], [200, 150], [200, 200], [150, 200]])
    content = [_feature(_polygon(_SQUARE, _HOLE)), _feature(island)]
    np.testing.assert_array_equal(_mask_of(geojson, content), holed | _box(15, 15, 20, 20))


def test_polygons_of_a_multipolygon_do_not_cancel_each_other(geojson: Path) -> None:
    content = {"type": "MultiPolygon", "coordinates": [[_SQUARE], [_moved(_SQUARE, 100, 0)]]}
    np.testing.assert_array_equal(_mask_of(geojson, content), _box(10, 10, 40, 30))
    content["coordinates"].append([_moved(_SQUARE, 150, 50), _moved(_HOLE, 150, 50)])
    mask = _mask_of(geojson, content)
    assert mask[12:28, 12:28].all()


def test_a_polygon_may_reach_beyond_the_slide(geojson: Path) -> None:
    for far in (1e3, 1e5, 1e9):
        around = [[-far, -far], [far, -far], [far, far], [-far, far]]
        assert _mask_of(geojson, _polygon(around)).all()
        assert not _mask_of(geojson, _polygon(_moved(_SQUARE, far, 0))).any()


@settings(deadline=None, max_examples=60)
@given(
    corners=st.lists(
        st.tuples(st.floats(-50, 650), st.floats(-50, 450)), min_size=3, max_size=8, unique=True
    ),
    scale=st.sampled_from([0.1, 0.25, 1.0]),
)
def test_a_mask_pixel_is_wanted_if_its_centre_is_inside(
    corners: list[tuple[float, float]], scale: float
) -> None:
    hull = cv2.convexHull(np.array(corners, np.float32))[:, 0]
    shape = (round(400 * scale), round(600 * scale))
    mask = draw_regions([[hull.astype(np.float64)]], shape, (600, 400))
    rng = np.random.default_rng(0)
    for y, x in zip(rng.integers(0, shape[0], 60), rng.integers(0, shape[1], 60), strict=True):
        centre = ((int(x) + 0.5) / scale, (int(y) + 0.5) / scale)
        distance = cv2.pointPolygonTest(hull[:, None], centre, True)
        if abs(distance) > 0.01:
            assert mask[y, x] == (distance > 0)


def test_the_mask_is_of_any_resolution(geojson: Path) -> None:
    mask = _mask_of(geojson, _polygon(_SQUARE), shape=(200, 120))
    assert mask.sum() * (600 / 120) * (400 / 200) == pytest.approx(200 * 200)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[" * 100_000,
        "null",
        "5",
        '"text"',
        "{}",
        "[null]",
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": null}',
        '{"type": "Feature"}',
        '{"type": "Polygon"}',
        '{"type": "Polygon", "coordinates": 5}',
        '{"type": "Polygon", "coordinates": {"a": 1}}',
        '{"type": "MultiPolygon", "coordinates": [5]}',
        '{"type": "MultiPolygon", "coordinates": [[[0, 0], [9, 0], [9, 9]]]}',
        '{"type": "Polygon", "coordinates": [[]]}',
        '{"type": "Polygon", "coordinates": [[[1], [2], [3]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [9], [9, 9]]]}',
        '{"type": "Polygon", "coordinates": [[["a", "b"]]]}',
        '{"type": "Polygon", "coordinates": [[[[0, 0], [9, 0], [9, 9]]]]}',
        '{"type": "Polygon", "coordinates": [[[NaN, 0], [9, 0], [9, 9]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [Infinity, 0], [9, 9]]]}',
        '{"type": "Polygon", "coordinates": [[[null, 0], [9, 0], [9, 9]]]}',
        '{"type": "Polygon", "coordinates": [[[1' + 400 * "0" + ", 0], [9, 0], [9, 9]]]}",
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_geojson_is_refused_by_name(geojson: Path, text: str) -> None:
    geojson.write_text(text)
    with pytest.raises(InputError, match=r"a\.geojson"):
        read_regions(geojson)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"type": "FeatureCollection", "features": []},
        _feature(None),
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "LineString", "coordinates": _SQUARE},
        {"type": "Polygon", "coordinates": []},
    ],
    ids=str,
)
def test_a_file_without_a_polygon_is_refused(geojson: Path, content: Any) -> None:
    geojson.write_text(json.dumps(content))
    with pytest.raises(InputError, match="holds no Polygon"):
        read_regions(geojson)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    for name in ("binary.json", "absent.json"):
        with pytest.raises(InputError, match=f"{name} cannot be read as GeoJSON"):
            read_regions(tmp_path / name)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(
            lambda kind, value: {"type": kind, "coordinates": value, "geometry": value},
            st.sampled_from(["Polygon", "MultiPolygon", "Feature"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(content=_JSON)
def test_any_json_is_refused_or_drawn(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        polygons = read_regions(path)
    except InputError:
        return
    assert all(math.isfinite(value) for rings in polygons for ring in rings for value in ring.flat)
    assert draw_regions(polygons, (40, 60), (600, 400)).shape == (40, 60)


@pytest.mark.parametrize("name", ["s1.geojson", "s1.json", "s1.svs.geojson", "s1.svs.json"])
def test_a_folder_holds_a_file_of_each_slides_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    (tmp_path / "s10.geojson").write_text("")
    assert find_regions(tmp_path, Path("slides/s1.svs")) == tmp_path / name


def test_one_file_is_for_all_slides(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text("")
    assert find_regions(tmp_path / "all.json", Path("s1.svs")) == tmp_path / "all.json"


def test_a_slide_without_regions_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no s2\.geojson, so nothing of .*s2\.svs is wanted"):
        find_regions(tmp_path, Path("slides/s2.svs"))

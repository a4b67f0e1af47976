"""Outlines of ImageScope: which pixels they hold, and which files are refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosin.datasets._imagescope import rasterise, read_outlines
from eosin.errors import InputError
from tests.datasets import trees


def test_outlines_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(trees.imagescope(((2.5, 1, 5, 4), (4, 2, 7, 5))))
    outlines = read_outlines(path)
    assert [each.tolist()[0] for each in outlines] == [[2.5, 1], [4, 2]]
    path.write_text("<Annotations><Annotation><Regions/></Annotation></Annotations>")
    assert read_outlines(path) == []


sides = st.integers(0, 12)


@given(sides, sides, sides, sides)
def test_a_rectangle_holds_the_pixels_between_its_sides(a: int, b: int, c: int, d: int) -> None:
    (left, right), (top, bottom) = sorted((a, b)), sorted((c, d))
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    drawn = rasterise([np.array(corners, dtype=float)], 8, 10)
    expected = np.zeros((8, 10))
    expected[top:bottom, left:right] = 1
    assert (drawn == expected).all()


def test_a_disc_has_its_area_and_its_centre() -> None:
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    centre, radius = np.array([30.25, 20.75]), 14.0
    outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows, columns = np.nonzero(rasterise([outline], 50, 60))
    assert len(rows) == pytest.approx(np.pi * radius**2, rel=0.01)
    assert columns.mean() + 0.5 == pytest.approx(centre[0], abs=0.05)
    assert rows.mean() + 0.5 == pytest.approx(centre[1], abs=0.05)


def test_lines_and_points_have_no_pixels() -> None:
    outlines = [np.zeros((0, 2)), np.array([[1.0, 1]]), np.array([[1.0, 1], [8, 8]])]
    assert not rasterise(outlines, 9, 9).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no XML"),
        (b"<Annotations>", "is no XML"),
        (b"\xff\xfe\x00", "is no XML"),
        (b'<?xml version="1.0" encoding="klingon"?><Annotations/>', "is no XML"),
        (b"<html></html>", "no outlines of ImageScope: it begins with <html>"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><Annotations>&b;</Annotations>', "document type"),
        (
            b'<Annotations><Region Id="7"><Vertex X="1" Y="a"/></Region></Annotations>',
            "region 7 has a vertex without a place",
        ),
        (b'<Annotations><Region><Vertex X="1"/></Region></Annotations>', "region without a number"),
        (b'<Annotations><Region Id="7"><Vertex X="1" Y="inf"/></Region></Annotations>', "region 7"),
    ],
)
def test_other_files_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(InputError, match=f"a.xml.*{said}"):
        read_outlines(tmp_path / "a.xml")


def test_document_types_are_seen_in_utf_16_too(tmp_path: Path) -> None:
    content = '<!DOCTYPE a [<!ENTITY b "c">]><Annotations>&b;</Annotations>'
    (tmp_path / "a.xml").write_bytes(content.encode("utf-16"))
    with pytest.raises(InputError, match="document type"):
        read_outlines(tmp_path / "a.xml")
    with pytest.raises(InputError, match="cannot be read"):
        read_outlines(tmp_path / "absent.xml")

from pathlib import Path

import pytest

from eosin.errors import InputError
from eosin.tiling.sources import find_slides, read_mpp_csv


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched_for_slides_alone(tmp_path: Path) -> None:
    _touch(tmp_path, "b.svs", "deep/er/a.NDPI", "notes.txt", ".hidden.svs", "mask.png", "c.tiff")
    found = [source.relative_path.as_posix() for source in find_slides([tmp_path])]
    assert found == ["b.svs", "c.tiff", "deep/er/a.NDPI"]


def test_a_slide_given_twice_counts_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.svs", "b.svs")
    assert len(find_slides([tmp_path, tmp_path / "b.svs"])) == 2


def test_names_depend_on_the_path_below_the_input_folder_alone(tmp_path: Path) -> None:
    _touch(tmp_path, "here/x/a.svs", "here/y/a.svs", "there/x/a.svs")
    first, second = find_slides([tmp_path / "here"])
    (moved,) = find_slides([tmp_path / "there"])
    assert first.slide_id != second.slide_id
    assert first.slide_id == moved.slide_id
    assert first.slide_id.startswith("a-") and len(first.slide_id) == len("a-") + 8


def test_two_slides_of_one_name_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.svs", "y/a.svs")
    with pytest.raises(InputError, match="same name in the store"):
        find_slides([tmp_path / "x" / "a.svs", tmp_path / "y" / "a.svs"])


def test_inputs_without_slides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no slides.*\.svs"):
        find_slides([tmp_path])
    with pytest.raises(InputError, match="no slide and no folder"):
        find_slides([tmp_path / "absent"])


def test_the_csv_names_slides_by_path_name_or_stem(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.svs", "y/a.svs", "b.svs", "c.svs", "d.svs")
    sources = find_slides([tmp_path])
    csv = tmp_path / "mpp.csv"
    csv.write_text("\ufeffnote,slide,mpp\n,x/a.svs,0.25\n,b.svs,0.5\n,c,1\nof another cohort,z,2\n")
    by_path = {s.relative_path.as_posix(): s.slide_id for s in sources}
    assert read_mpp_csv(csv, sources) == {
        by_path["x/a.svs"]: 0.25,
        by_path["b.svs"]: 0.5,
        by_path["c.svs"]: 1.0,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,mpp\na,0.5\n", "columns slide and mpp"),
        ("", "columns slide and mpp"),
        ("slide,mpp\na,half\n", "line 2.*'half'"),
        ("slide,mpp\na,0.5\na,0.25\n", "line 3"),
        ("slide,mpp\na\n", "line 2"),
        ("slide,mpp\na,-1\n", "line 2"),
        ("slide,mpp\nz,0.5\n", "names none of the slides"),
    ],
)
def test_a_csv_that_makes_no_sense(tmp_path: Path, content: str, message: str) -> None:
    _touch(tmp_path, "a.svs")
    (tmp_path / "mpp.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_mpp_csv(tmp_path / "mpp.csv", find_slides([tmp_path]))


def test_a_csv_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a CSV"):
        read_mpp_csv(tmp_path / "absent.csv", [])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x80slide")
    with pytest.raises(InputError, match="cannot be read as a CSV"):
        read_mpp_csv(tmp_path / "binary.csv", [])

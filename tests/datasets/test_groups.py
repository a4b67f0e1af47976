from pathlib import Path

import pytest

from eosin.datasets._base import Options
from eosin.datasets._groups import find_groups
from eosin.errors import InputError

IDS = ["lung/a/1.png", "lung/a/2.png", "lung/b/3.png"]
CLASSES = ["a", "a", "b"]


def write(folder: Path, text: str, name: str = "groups.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def groups_of(folder: Path, **options) -> list[str]:
    return find_groups(folder, IDS, CLASSES, Options(**options))[0].tolist()


def test_without_a_csv_every_image_is_its_own_group(tmp_path: Path) -> None:
    groups, what = find_groups(tmp_path, IDS, CLASSES, Options())
    assert groups.tolist() == IDS
    assert what == "image"


@pytest.mark.parametrize(
    "text",
    [
        "file,patient\nlung/a/1.png,p\nlung/a/2.png,p\nlung/b/3.png,q\n",
        "Patient;File\np;1.png\np;2.png\nq;3.png\n",
        "filename\tcase_id\n1\tp\n2\tp\n3\tq\n",
        "class,file,source_image\na,1.png,p\na,2.png,p\nb,3.png,q\n",
        "path,slide,note\na\\1.png,p,\na/2.png,p,x\n./b/3.png,q\n",
        "\ufefffile,patient,slide\n1.png,p,s1\n2.png,p,s2\n3.png,q,s3\n",
    ],
)
def test_the_only_csv_in_the_root_is_understood(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert groups_of(tmp_path) == ["p", "p", "q"]


def test_a_csv_elsewhere_and_a_column_of_another_name_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = write(tmp_path, "file,patient,block\n1.png,p,x\n2.png,p,y\n3.png,p,x\n")
    groups, what = find_groups(
        tmp_path / "data", IDS, CLASSES, Options(groups=path, group_column="block")
    )
    assert groups.tolist() == ["x", "y", "x"]
    assert what == "block in groups.csv"


def test_csvs_without_a_known_column_are_no_groups(tmp_path: Path) -> None:
    write(tmp_path, "file,grade\n1.png,3\n", "grades.csv")
    assert groups_of(tmp_path) == IDS
    write(tmp_path, "file,patient\n1.png,p\n2.png,p\n3.png,q\n")
    assert groups_of(tmp_path) == ["p", "p", "q"]


def test_groups_can_be_ignored(tmp_path: Path) -> None:
    write(tmp_path, "file,patient\n1.png,p\n2.png,p\n3.png,q\n")
    assert groups_of(tmp_path, group_column="none") == IDS


def test_class_column_tells_equal_names_apart(tmp_path: Path) -> None:
    write(tmp_path, "class,file,patient\na,1.png,p\nb,1.png,q\n")
    groups, _ = find_groups(tmp_path, ["a/1.png", "b/1.png"], ["a", "b"], Options())
    assert groups.tolist() == ["p", "q"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,patient\n1.png,p\n2.png,p\n", "of 1 of 3 images, such as lung/b/3.png"),
        ("file,patient\n1.png,p\n1.png,q\n2.png,p\n3.png,q\n", "line 3: 1.png is of q here"),
        ("file,patient\n1.png,p\n2.png,\n3.png,q\n", "line 3: the patient of 2.png is empty"),
        ("tile,patient\n1.png,p\n", "none that names the file"),
        ("file,patient\n", "no rows"),
        ("file,patient\n\xff1.png,p\n".encode("latin-1"), "not a CSV in UTF-8"),
    ],
)
def test_what_a_csv_lacks_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "groups.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"groups\.csv.*") as caught:
        groups_of(tmp_path)
    assert said in str(caught.value)


def test_a_name_that_two_images_have_is_no_answer(tmp_path: Path) -> None:
    write(tmp_path, "file,patient\n1.png,p\n")
    with pytest.raises(InputError, match="stands for 2 images"):
        find_groups(tmp_path, ["a/1.png", "b/1.png"], ["a", "b"], Options())


def test_two_csvs_with_groups_are_not_chosen_between(tmp_path: Path) -> None:
    write(tmp_path, "file,patient\n1.png,p\n", "one.csv")
    write(tmp_path, "file,slide\n1.png,p\n", "two.csv")
    with pytest.raises(InputError, match=r"one\.csv, two\.csv"):
        groups_of(tmp_path)


def test_a_column_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CSV with the column 'block'"):
        groups_of(tmp_path, group_column="block")
    write(tmp_path, "file,patient\n1.png,p\n")
    with pytest.raises(InputError, match="must be one of file, patient"):
        groups_of(tmp_path, group_column="block")


def test_a_missing_file_of_groups_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv cannot be read"):
        groups_of(tmp_path, groups=tmp_path / "absent.csv")

import pytest

from eosin.errors import InputError
from eosin.report.inputs import read_curve, read_picture

PNG = b"\x89PNG\r\n\x1a\nrest"


def test_a_curve_is_read_in_order_of_updates(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"event": "start"}\n\n{"update": 2, "loss": 1.5}\n{"update": 1, "loss": 2}\n'
        '{"update": 3, "loss": NaN}\n{"update": 2, "loss": 1.25}\n{"update": 4, "lo'
    )
    curve = read_curve("run", path)
    assert (curve.name, curve.updates, curve.losses) == ("run", (1, 2), (2.0, 1.25))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json\n", r"log\.jsonl, line 1"),
        ('{"update": 1, "loss": 1}\n[1]\n', r"log\.jsonl, line 2"),
        ('{"update": 1}\n', "no line with"),
        ("", "no line with"),
    ],
)
def test_a_file_that_is_no_log_is_named(tmp_path, content, words):
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_curve("run", path)


def test_a_missing_log_or_picture_is_named(tmp_path):
    with pytest.raises(InputError, match="absent does not exist"):
        read_curve("run", tmp_path / "absent")
    with pytest.raises(InputError, match="absent does not exist"):
        read_picture("tile", tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "kind"), [(PNG, "image/png"), (b"\xff\xd8\xff\xe0rest", "image/jpeg")]
)
def test_a_picture_becomes_a_data_uri_by_its_content(tmp_path, content, kind):
    path = tmp_path / "picture.txt"
    path.write_bytes(content)
    assert read_picture("tile", path).data_uri.startswith(f"data:{kind};base64,")


def test_other_files_and_huge_pictures_are_refused(tmp_path):
    path = tmp_path / "page.png"
    path.write_bytes(b"<svg onload='alert(1)'/>")
    with pytest.raises(InputError, match="neither PNG nor JPEG"):
        read_picture("tile", path)
    path.write_bytes(PNG + bytes(5_000_000))
    with pytest.raises(InputError, match="over 4 MB"):
        read_picture("tile", path)

from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.embeddings import matrix_file
from eosin.embeddings.matrix_file import DTYPES, is_whole, map_matrix, read_matrix


def write(path: Path, matrix: np.ndarray, *, cut: int = 0, **metadata: str) -> None:
    """Writes the rows from `cut` on first."""
    name = next(name for name, dtype in DTYPES.items() if dtype == matrix.dtype)
    with matrix_file.writing(path, matrix.shape, name, metadata) as content:
        content.put(cut, matrix[cut:])
        content.put(0, matrix[:cut])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(0, 7),
    cut=st.integers(0, 7),
    width=st.integers(1, 9),
    note=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_the_library_reads_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, rows: int, cut: int, width: int, note: str
) -> None:
    path = tmp_path_factory.mktemp("matrix") / "m.safetensors"
    matrix = np.random.default_rng(rows).normal(size=(rows, width)).astype(dtype)
    write(path, matrix, cut=min(cut, rows), note=note, sha="0" * 64)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.keys() == ["embeddings"]
        assert (file.get_tensor("embeddings") == matrix).all()
        assert file.metadata()["note"] == note
    found = read_matrix(path)
    assert found is not None and (found[0] == matrix).all() and found[0].dtype == dtype
    assert is_whole(path) and map_matrix(path)[0].shape == (rows, width)
    assert found[1]["sha"] == "0" * 64


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        matrix_file.writing(tmp_path / "m.safetensors", (2, 3), "float32", {}) as matrix,
    ):
        matrix.put(0, np.ones((1, 3)))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("first", "shape"), [(1, (2, 3)), (0, (1, 4)), (3, (0, 2))])
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, first: int, shape: tuple[int, int]
) -> None:
    with (
        pytest.raises(ValueError, match="does not fit"),
        matrix_file.writing(tmp_path / "m.safetensors", (2, 3), "float32", {}) as matrix,
    ):
        matrix.put(first, np.ones(shape))


@pytest.mark.parametrize("place", [-1, -30, 8, 20])
def test_an_altered_byte_is_noticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "m.safetensors"
    write(path, np.ones((4, 5), np.float32))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert read_matrix(path) is None and not is_whole(path)


@pytest.mark.parametrize("length", [0, 7, 40, -1])
def test_a_truncated_file_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.safetensors"
    write(path, np.ones((4, 5), np.float32))
    path.write_bytes(path.read_bytes()[:length])
    assert map_matrix(path) is None and not is_whole(path)


def test_other_tensors_are_no_matrix(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for tensors in ({"other": np.ones((2, 2))}, {"embeddings": np.ones(3, np.float32)}):
        safetensors.numpy.save_file(tensors, path)
        assert map_matrix(path) is None
    safetensors.numpy.save_file({"embeddings": np.ones((2, 2), np.int64)}, path)
    assert map_matrix(path) is None
    assert read_matrix(tmp_path / "absent") is None

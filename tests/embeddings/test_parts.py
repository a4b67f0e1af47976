import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.embeddings import parts
from eosin.embeddings.extract import Batch, batches_of
from eosin.embeddings.parts import Parts, Shape
from eosin.errors import InputError

SHAPE = Shape(key="k", images=11, embed_dim=3, batch_size=4)
MATRIX = np.arange(33, dtype=np.float32).reshape(11, 3)


def batch(number: int, shape: Shape = SHAPE, matrix: np.ndarray = MATRIX, **more) -> Batch:
    images = shape.images_of(number)
    return Batch(images=images, embeddings=matrix[images.start : images.stop], **more)


def test_parts_are_taken_up_by_the_next_run(tmp_path: Path) -> None:
    first = Parts(tmp_path, SHAPE)
    assert first.left.tolist() == [0, 1, 2] and first.images_done == 0
    first.add(batch(2))
    first.flush()
    first.add(batch(0))  # not yet written, and lost with the process
    second = Parts(tmp_path, SHAPE)
    assert second.left.tolist() == [0, 1] and second.images_done == 3
    for number in (1, 0):
        second.add(batch(number))
    assert len(second.left) == 0 and second.images_done == 11
    assert (second.matrix() == MATRIX).all()


@given(
    images=st.integers(0, 12),
    size=st.integers(2, 5),
    data=st.data(),
)
@settings(max_examples=12, deadline=None)
def test_the_matrix_is_the_same_wherever_runs_were_stopped(
    tmp_path_factory: pytest.TempPathFactory, images: int, size: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    shape = Shape(key="k", images=images, embed_dim=2, batch_size=size)
    matrix = np.random.default_rng(images).normal(size=(images, 2)).astype(np.float32)
    assert [shape.images_of(n) for n in range(shape.batches)] == batches_of(images, size)
    while len((run := Parts(folder, shape, data.draw(st.integers(0, 3)))).left):
        order = data.draw(st.permutations(run.left.tolist()))
        survive = data.draw(st.integers(1, len(order)))
        for number in order[:survive]:
            run.add(batch(number, shape, matrix))
            if data.draw(st.booleans()):
                run.flush()
        run.flush()
        assert run.images_done == images - sum(len(shape.images_of(n)) for n in run.left.tolist())
    assert (Parts(folder, shape).matrix() == matrix).all()


def test_files_are_written_as_time_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=3)
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    done = Parts(tmp_path, SHAPE)
    for number in range(3):
        done.add(batch(number))
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_unreadable_is_remembered(tmp_path: Path) -> None:
    done = Parts(tmp_path, SHAPE)
    done.add(batch(1, unreadable={5: "torn"}))
    done.flush()
    assert Parts(tmp_path, SHAPE).unreadable == {5: "torn"}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)


def change_a_reason(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"torn", b"good"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rename_tensors(path: Path) -> None:
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)


@pytest.mark.parametrize("damage", [truncate, flip, change_a_reason, empty, rename_tensors])
def test_damaged_parts_are_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    done = Parts(tmp_path, SHAPE)
    done.add(batch(1, unreadable={5: "torn"}))
    done.flush()
    (path,) = tmp_path.iterdir()
    damage(path)
    again = Parts(tmp_path, SHAPE)
    assert len(again.left) == 3 and again.unreadable == {}
    assert not path.exists()


@pytest.mark.parametrize(
    "other",
    [
        Shape(key="other", images=11, embed_dim=3, batch_size=4),
        Shape(key="k", images=12, embed_dim=3, batch_size=4),
        Shape(key="k", images=11, embed_dim=3, batch_size=5),
        Shape(key="k", images=11, embed_dim=4, batch_size=4),
    ],
)
def test_parts_of_another_matrix_are_not_used(tmp_path: Path, other: Shape) -> None:
    done = Parts(tmp_path, SHAPE)
    done.add(batch(0))
    done.flush()
    assert len(Parts(tmp_path, other).left) == other.batches


def test_damage_while_a_run_goes_on_is_an_error(tmp_path: Path) -> None:
    done = Parts(tmp_path, SHAPE)
    done.add(batch(1))
    done.flush()
    (path,) = tmp_path.iterdir()
    flip(path)
    with pytest.raises(InputError, match="was damaged meanwhile"):
        list(done.pieces())


def test_several_processes_write_beside_each_other(tmp_path: Path) -> None:
    main, other = Parts(tmp_path, SHAPE), Parts(tmp_path, SHAPE, 1, looks=False)
    for done, number in ((main, 0), (other, 1), (other, 2)):
        done.add(batch(number))
        done.flush()
    assert main.left.tolist() == [1, 2]
    main.look_again()
    assert (main.matrix() == MATRIX).all()


def test_the_folder_is_for_one_run_and_goes_when_it_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "x.parts"
    with (
        parts.locked(folder),
        pytest.raises(InputError, match="being written by another run"),
        parts.locked(folder),
    ):
        pass
    assert not folder.exists()
    with parts.locked(folder):
        done = Parts(folder, SHAPE)
        done.add(batch(1))
        done.flush()
    assert len(Parts(folder, SHAPE).left) == 2

"""Checkpoints of others: everything is read, nothing is run."""

import argparse
import builtins
import contextlib
import functools
import importlib
import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from safetensors.torch import save_file
from torch import Tensor, nn

from eosin.errors import InputError
from eosin.weights.inert_pickle import InertUnpickler, Stub
from eosin.weights.unpickling import read_checkpoint

SENTINEL = "ran"


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


Saver = Callable[[Any, Path], None]


@pytest.fixture(params=[save_zip, save_legacy])
def save(request: pytest.FixtureRequest) -> Saver:
    return request.param


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "checkpoint.pth.tar"


class Hyperparameters(dict[str, Any]):
    """As Lightning's AttributeDict: a table with attributes and a state of its own."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.seen: list[str] = []

    def __getstate__(self) -> Any:
        return {"seen": ["a"]}

    def __setstate__(self, state: Any) -> None:
        Path(SENTINEL).touch()

    def __reduce__(self) -> Any:
        return (Hyperparameters, (), {"seen": ["a"]}, None, iter(self.items()))


class Appended(list[Any]):
    """A list that does something when it grows."""

    def append(self, value: Any) -> None:
        Path(SENTINEL).touch()

    def extend(self, values: Any) -> None:
        Path(SENTINEL).touch()


def content_of(tensor: Tensor) -> dict[str, Any]:
    return {
        "state_dict": OrderedDict(weight=tensor, view=tensor[1:, ::2], scalar=torch.tensor(3)),
        "args": argparse.Namespace(lr=0.1, arch="vit_small"),
        "hyper_parameters": Hyperparameters(lr=0.1),
        "epoch": 3,
        "best": np.float64(0.5),
        "count": np.int64(7),
        "numbers": np.arange(6, dtype=">f4").reshape(2, 3),
        "meters": defaultdict(list, {"loss": [1.0]}),
        "steps": Counter({"a": 2}),
        "parameter": nn.Parameter(tensor.clone()),
        "path": Path("x"),
        "dtype": torch.float16,
        "sets": ({1, 2}, frozenset({3}), [None, True, 2**70, "ü", b"b", 1.5, 1j]),
    }


def test_foreign_objects_become_stubs_and_all_else_is_read(save: Saver, file: Path) -> None:
    tensor = torch.randn(4, 6)
    save(content_of(tensor), file)
    Path(SENTINEL).unlink(missing_ok=True)
    found = read_checkpoint(file)
    assert torch.equal(found["state_dict"]["weight"], tensor)
    assert torch.equal(found["state_dict"]["view"], tensor[1:, ::2])
    assert found["state_dict"]["scalar"].item() == 3
    assert isinstance(found["args"], Stub) and found["args"].name == "argparse.Namespace"
    assert found["args"].state == {"lr": 0.1, "arch": "vit_small"}
    assert isinstance(found["hyper_parameters"], Stub)
    assert found["hyper_parameters"].items == [("lr", 0.1)]
    assert found["epoch"] == 3 and found["best"] == 0.5 and found["count"] == 7
    assert torch.equal(found["numbers"], torch.arange(6.0).reshape(2, 3))
    assert found["meters"] == {"loss": [1.0]} and found["steps"] == {"a": 2}
    assert torch.equal(found["parameter"], tensor) and not found["parameter"].requires_grad
    assert isinstance(found["path"], Stub)
    assert found["dtype"] == torch.float16
    assert found["sets"][0] == {1, 2} and found["sets"][1] == frozenset({3})
    assert found["sets"][2][:6] == [None, True, 2**70, "ü", b"b", 1.5]
    assert not Path(SENTINEL).exists()


def test_tensors_of_every_type_and_shared_storages(save: Saver, file: Path) -> None:
    base = torch.arange(24)
    dtypes = [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
        *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128),
    ]
    kinds = {str(dtype): base.to(dtype) for dtype in dtypes}
    shared = torch.randn(6)
    content = {"kinds": kinds, "shared": [shared[:3], shared[3:]], "empty": torch.zeros(0, 3)}
    save({**content, "args": argparse.Namespace()}, file)
    found = read_checkpoint(file)
    for name, tensor in kinds.items():
        assert found["kinds"][name].dtype == tensor.dtype
        assert torch.equal(found["kinds"][name], tensor)
    assert torch.equal(torch.cat(found["shared"]), shared)
    assert found["empty"].shape == (0, 3)


def test_omegaconf_becomes_stubs(save: Saver, file: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"lr": 0.1, "layers": [1, 2], "name": "${lr}"})
    save({"cfg": config, "state_dict": {"w": torch.ones(2)}}, file)
    found = read_checkpoint(file)
    assert isinstance(found["cfg"], Stub) and "omegaconf" in found["cfg"].name
    assert torch.equal(found["state_dict"]["w"], torch.ones(2))


def test_a_pickled_module_is_a_stub(save: Saver, file: Path) -> None:
    save(nn.Linear(2, 3), file)
    found = read_checkpoint(file)
    assert isinstance(found, Stub) and found.name.endswith("Linear")
    assert found.state["_parameters"]["weight"].shape == (3, 2)


class Runs:
    """Pickles as a call of `what` with `arguments`, and more."""

    def __init__(self, what: Any, arguments: tuple[Any, ...], *more: Any) -> None:
        self.call = (what, arguments, *more)

    def __reduce__(self) -> Any:
        return tuple(iter(part) if isinstance(part, list) else part for part in self.call)

    def __call__(self) -> None:
        """Only what can be called is pickled as what is called."""


def opens(path: str) -> None:
    Path(path).touch()


class Restored:
    def __setstate__(self, state: Any) -> None:
        Path(SENTINEL).touch()


ATTACKS = {
    "system": Runs(os.system, (f"touch {SENTINEL}",)),
    "eval": Runs(builtins.eval, (f"__import__('os').mknod('{SENTINEL}')",)),
    "exec": Runs(builtins.exec, (f"import os; os.mknod('{SENTINEL}')",)),
    "mknod": Runs(os.mknod, (SENTINEL,)),
    "own function": Runs(opens, (SENTINEL,)),
    "chain": Runs(
        Runs(builtins.getattr, (Runs(importlib.import_module, ("os",)), "system")),
        (f"touch {SENTINEL}",),
    ),
    "partial": Runs(Runs(functools.partial, (opens, SENTINEL)), ()),
    "map": Runs(list, (Runs(map, (opens, [SENTINEL])),)),
    "setstate": Runs(Restored, (), {"a": 1}),
    "function state": Runs(opens, (SENTINEL,), {"a": 1}),
    "appended": Runs(Appended, (), None, [1, 2]),
    "in a tuple": (1, [Runs(os.system, (f"touch {SENTINEL}",))]),
    "as a key": {Runs(os.system, (f"touch {SENTINEL}",)): 1},
    "in a table": OrderedDict(a=Runs(os.system, (f"touch {SENTINEL}",))),
}


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("saver", [save_zip, save_legacy, save_pickle])
def test_nothing_that_a_file_names_is_run(name: str, saver: Saver, file: Path) -> None:
    weights = np.ones(1) if saver is save_pickle else torch.ones(1)
    saver({"attack": ATTACKS[name], "w": weights}, file)
    found = read_checkpoint(file)
    assert not Path(SENTINEL).exists()
    assert found["w"].tolist() == [1]


def test_the_attacks_are_real(file: Path) -> None:
    for name, attack in ATTACKS.items():
        with contextlib.suppress(TypeError, AttributeError):  # after the deed
            pickle.loads(pickle.dumps(attack))
        assert Path(SENTINEL).exists(), name
        Path(SENTINEL).unlink()


HAND_WRITTEN = {
    "old call": b"cos\nsystem\n(S'touch ran'\ntR.",
    "inst": b"(S'touch ran'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch ran'\no.",
    "attributes of a table entry": b"ctorch._utils\n_rebuild_tensor_v2\n}S'a'\nI1\nsb.",
    "method of a tensor": b"ctorch\nTensor.apply_\n(cos\nsystem\ntR.",
    "dotted": b'\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93(S\'open("ran","w")\'\ntR.',
    "keywords": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x8c\x07commandS'touch ran'\ns\x92.",
    "build of a class": b"ctorch.nn.parameter\nParameter\n(N}S'__new__'\ncos\nsystem\nstb.",
}


@pytest.mark.parametrize("name", sorted(HAND_WRITTEN))
def test_hand_written_pickles_run_nothing(name: str, file: Path) -> None:
    before = dict(vars(nn.Parameter))
    file.write_bytes(HAND_WRITTEN[name])
    read_checkpoint(file)
    assert not Path(SENTINEL).exists()
    assert dict(vars(nn.Parameter)) == before


def test_foreign_identifiers_are_refused(file: Path) -> None:
    file.write_bytes(b"(S'module'\ncos\nsystem\ntQ.")
    with pytest.raises(InputError, match="it refers to"):
        read_checkpoint(file)
    file.write_bytes(b"Pos.system\n.")
    with pytest.raises(InputError, match="it refers to"):
        read_checkpoint(file)


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Writes an archive again with another pickle."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_a_tensor_larger_than_its_numbers_shows_no_memory_of_others(file: Path) -> None:
    save_zip({"w": torch.ones(7, 5), "args": argparse.Namespace()}, file)
    rewritten(file, lambda content: content.replace(b"K\x07K\x05\x86", b"M\xff\xffK\x05\x86"))
    with pytest.raises(InputError, match=r"shape \(65535, 5\) in too few numbers"):
        read_checkpoint(file)


def test_absurd_sizes_are_refused_before_memory_is_taken(file: Path) -> None:
    save_legacy({"w": torch.ones(7), "args": argparse.Namespace()}, file)
    content = file.read_bytes()
    assert content.count(b"K\x07N") == 1  # the count of numbers of the storage
    file.write_bytes(content.replace(b"K\x07N", b"\x8a\x07\x00\x00\x00\x00\x00\x00\x10N"))
    with pytest.raises(InputError, match="more numbers than fit"):
        read_checkpoint(file)


def test_objects_of_numpy_are_refused(file: Path) -> None:
    save_zip({"a": np.array([os.system, 1], dtype=object)}, file)
    with pytest.raises(InputError, match="array of type"):
        read_checkpoint(file)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_named(save: Saver, file: Path, share: float) -> None:
    save(content_of(torch.randn(30, 60)), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"checkpoint\.pth\.tar cannot be read"):
        read_checkpoint(file)


def test_a_flipped_bit_is_noticed(file: Path) -> None:
    torch.save({"w": torch.zeros(10_000)}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert torch.load(file, weights_only=True)["w"].any()  # PyTorch does not
    with pytest.raises(InputError, match="not what was written"):
        read_checkpoint(file)


def test_other_files_are_no_checkpoints(file: Path) -> None:
    for content in (b"", b"<html>not found</html>", b"PK\x03\x04 no archive", b"\x80\x02", b"{}"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a checkpoint"):
            read_checkpoint(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(InputError, match=r"without data\.pkl"):
        read_checkpoint(file)
    with pytest.raises(InputError, match="is not a file"):
        read_checkpoint(file.parent)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused(file: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(file))
    with pytest.raises(InputError, match="TorchScript"):
        read_checkpoint(file)


def test_safetensors_by_suffix_and_by_content(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.bin"):
        save_file({"w": torch.ones(3)}, tmp_path / name)
        assert torch.equal(read_checkpoint(tmp_path / name)["w"], torch.ones(3))
    (tmp_path / "a.safetensors").write_bytes(b"\x09" * 30)
    with pytest.raises(InputError, match=r"a\.safetensors cannot be read"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_a_compressed_archive_is_read_all_the_same(tmp_path: Path) -> None:
    path, again = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": torch.arange(1000.0)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert torch.equal(read_checkpoint(again)["w"], torch.arange(1000.0))


def test_numbers_in_the_other_byte_order_are_refused(file: Path) -> None:
    save_zip({"w": torch.ones(2), "args": argparse.Namespace()}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, b"big" if name.endswith("byteorder") else content)
    with pytest.raises(InputError, match="big-endian"):
        read_checkpoint(file)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers())
    ),
    max_leaves=12,
)


@given(content=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back_from_every_protocol(content: Any, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(content, protocol))
    assert InertUnpickler(lambda identifier: None).load(stream) == content


numbers = scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 16)


@given(array=arrays(numbers, array_shapes(max_side=4)), protocol=st.integers(2, 4))
def test_numpy_arrays_come_back(array: np.ndarray[Any, Any], protocol: int) -> None:
    if array.dtype.char in "gGe":
        array = array.astype("f4")
    found = InertUnpickler(lambda _: None).load(io.BytesIO(pickle.dumps([array, array], protocol)))
    for each in found:
        np.testing.assert_array_equal(each.numpy(), array)


@given(content=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    refusals = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)
    with contextlib.suppress(*refusals):
        InertUnpickler(lambda _: None).load(io.BytesIO(content))

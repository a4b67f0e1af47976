"""What the reader of pickles may make: tensors, plain arrays and scalars, Python's containers."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN_TYPE = re.compile(r"[<>=|]?([?bBhHiIlLqQefd]|[biufc][0-9]{1,2}|[SU][0-9]+)")


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors are views of.

    Attributes:
        untyped: the bytes.
        dtype: of the numbers.
    """

    untyped: torch.UntypedStorage
    dtype: torch.dtype


@dataclass(frozen=True)
class NumpyType:
    """A numpy type of plain numbers or text.

    Attributes:
        code: as numpy writes it, such as `f8`.
    """

    code: str

    def with_state(self, state: Any) -> "NumpyType":
        """Gives the type in the byte order that its state names."""
        order = str(state[1])
        return replace(self, code=order + self.code.lstrip("<>=|"))

    def numpy(self) -> "np.dtype[Any]":
        """Gives numpy's own.

        Raises:
            ValueError: it is a type of objects, or none.
        """
        if _PLAIN_TYPE.fullmatch(self.code) is None:
            raise ValueError(f"it has an array of type {self.code!r}")
        return np.dtype(self.code)


@dataclass(frozen=True)
class NumpyArray:
    """An array that has no values yet."""

    def with_state(self, state: Any) -> Tensor | Any:
        """Gives the array that its state describes: a tensor where PyTorch has its type.

        Raises:
            ValueError: the state has other values than its shape says.
        """
        _, shape, dtype, is_fortran, data = state
        kind: np.dtype[Any] = dtype.numpy()
        raw = data.encode("latin-1") if isinstance(data, str) else data
        values = np.frombuffer(raw, kind).reshape(shape, order="F" if is_fortran else "C")
        values = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(values) if values.dtype.kind in "biufc" else values


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Gives a view of a storage.

    PyTorch enlarges a storage that is too small for the view, and so would show memory of others.
    """
    if not isinstance(storage, Storage):
        raise ValueError("it has a tensor without numbers")
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if offset < 0 or len(size) != len(stride) or min((*size, *stride), default=0) < 0:
        raise ValueError(f"it has a tensor of shape {size} at {offset}")
    steps = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    last = offset + steps if math.prod(size) else offset - 1
    if (last + 1) * storage.dtype.itemsize > storage.untyped.nbytes():
        raise ValueError(f"it has a tensor of shape {size} in too few numbers")
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped, int(offset), size, stride)


def _tensor_of_type(
    storage: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype,
    *_: Any,
) -> Tensor:
    return _tensor(replace(storage, dtype=dtype), offset, size, stride)


def _scalar(dtype: NumpyType, data: bytes | str = b"") -> Any:
    raw = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype.numpy(), count=1)[0].item()


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError(f"it has text in {encoding!r}")
    return text.encode(encoding)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("it has a parameter that is no tensor")
    return data


def _table(*arguments: Any) -> dict[Any, Any]:
    return dict(arguments[0]) if arguments and isinstance(arguments[0], list | dict) else {}


def _listed(kind: type) -> Callable[..., Any]:
    def make(values: Any = ()) -> Any:
        if not isinstance(values, list | tuple | set | bytes | bytearray):
            raise ValueError(f"it has a {kind.__name__} of something else")
        return kind(values)

    return make


def _under(modules: tuple[str, ...], names: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{module}.{name}": made for module in modules for name, made in names.items()}


BUILDERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": _table,
    "_codecs.encode": _bytes,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.Buffer": _parameter,
    "torch.Size": _listed(tuple),
    **_under(
        ("torch._utils",),
        {
            "_rebuild_tensor": _tensor,
            "_rebuild_tensor_v2": _tensor,
            "_rebuild_tensor_v3": _tensor_of_type,
            "_rebuild_parameter": _parameter,
            "_rebuild_parameter_with_state": _parameter,
        },
    ),
    **_under(
        ("numpy.core.multiarray", "numpy._core.multiarray"),
        {"_reconstruct": lambda *_: NumpyArray(), "scalar": _scalar},
    ),
    "numpy.dtype": lambda code, *_: NumpyType(str(code)),
    **_under(
        ("builtins", "__builtin__"),
        {kind.__name__: _listed(kind) for kind in (set, frozenset, list, tuple, bytes, bytearray)},
    ),
}
"""What a file may call, by its name there."""

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
CONSTANTS: Mapping[str, Any] = {
    **_under(("torch",), _DTYPES),
    **{
        f"torch{of}.{name}Storage": dtype
        for name, dtype in _STORAGES.items()
        for of in ("", ".cuda")
    },
    "torch.storage.UntypedStorage": torch.uint8,
}
"""What a file may name without calling it."""

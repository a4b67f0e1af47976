"""MATLAB's files of matrices, the old kind and the one that is HDF5 (v7.3)."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from eosin.errors import InputError

# What SciPy and h5py raise for damaged files.
_DECODING_ERRORS = (
    MatReadError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    NotImplementedError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
)


def read_mat(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Reads matrices of numbers from a `.mat` file; names that it lacks are left out.

    Nothing in such a file is executed: cells, structures and objects are refused.

    Raises:
        InputError: it cannot be read, or one of the names is no matrix of numbers.
    """
    try:
        found = _read_hdf5(path, names) if h5py.is_hdf5(path) else _read_old(path, names)
    except _DECODING_ERRORS as error:
        raise InputError(f"{path} cannot be read as a MATLAB file: {error}.") from None
    for name, matrix in found.items():
        if matrix.dtype.kind not in "biuf":
            raise InputError(f"{path}: {name} is no matrix of numbers.")
    return found


def _read_old(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    content = scipy.io.loadmat(path, appendmat=False, variable_names=list(names))
    return {name: np.asarray(content[name]) for name in names if name in content}


def _read_hdf5(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Reads what lies there column by column, so turned round."""
    found: dict[str, NDArray[Any]] = {}
    with h5py.File(path, "r") as file:
        for name in names:
            entry = file.get(name)
            if isinstance(entry, h5py.Dataset):
                found[name] = np.asarray(entry[()]).T
            elif entry is not None:
                found[name] = np.empty(0, dtype=object)
    return found

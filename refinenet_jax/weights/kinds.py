"""What a file is by its content, whatever its name says."""

import struct
import zipfile

from etils import epath

from refinenet_jax import files
from refinenet_jax.errors import UserError

SAFETENSORS, PICKLE = "safetensors", "pickle"

_SUFFIX = ".safetensors"
_HEAD = 512  # bytes that are looked at
_FETCH = "fetch the file itself"
_UNPACK = "unpack it and name the file of weights in it"
# Position and bytes there: what such a file is, and what to do with it.
_FOREIGN = (
    (0, b"<!doctype", "a web page, not what it links to", _FETCH),
    (0, b"<html", "a web page, not what it links to", _FETCH),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS",
        f"{_FETCH}, with git lfs pull",
    ),
    (0, b"{", "JSON and holds no weights", "name the file that it tells of"),
    (0, b"\x89hdf\r\n\x1a\n", "an HDF5 file", "save the weights from PyTorch"),
    (0, b"matlab 5.0", "a MATLAB file, which is not read here", "see docs/weights.md"),
    (0, b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (0, b"bzh", "compressed with bzip2", _UNPACK),
    (0, b"\xfd7zxz", "compressed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
)
# The end of a name in a zip archive: what such an archive is, and what to do with it.
_ARCHIVES = (
    (
        "/constants.pkl",
        "a TorchScript program, which is code",
        "save its state_dict() instead: torch.save(torch.jit.load(FILE).state_dict(), …)",
    ),
    (
        "archive_format",
        "a program of torch.export, which is code",
        "save its state_dict instead: torch.save(torch.export.load(FILE).state_dict, …)",
    ),
    (".npy", "a NumPy archive", "save the weights from PyTorch"),
    (".weights.h5", "a Keras model", "save the weights from PyTorch"),
)


def kind_of(path: epath.Path, name: str) -> str:
    """SAFETENSORS, or PICKLE for all that torch is to open.

    path: where the file can be read; name: how to call it in messages.

    Raises:
        UserError: it is empty, or known to be something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise UserError(f"{name} is empty: fetch it again")
    if _is_safetensors(head):
        return SAFETENSORS
    text = head.lstrip().lower()
    for start, mark, what, remedy in _FOREIGN:
        if (head if start else text)[start:].startswith(mark):
            raise UserError(f"{name} is {what}: {remedy}")
    is_torch = head.startswith((b"PK\x03\x04", b"\x80"))
    # What is wrong with such a file is for its reader to tell.
    return SAFETENSORS if path.suffix == _SUFFIX and not is_torch else PICKLE


def refuse_other_archives(path: epath.Path, name: str) -> None:
    """Raises UserError where a zip archive on disk is known to be no pickle of weights."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for end, what, remedy in _ARCHIVES:
        if any(inner.endswith(end) for inner in names):
            raise UserError(f"{name} is {what}: {remedy}")
    if not any(inner.endswith("data.pkl") for inner in names):
        raise UserError(
            f"{name} is no PyTorch checkpoint but a zip archive of "
            f"{files.path(names[0]).name if names else 'nothing'}: {_UNPACK}"
        )


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes that tell the length of the JSON that follows."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return 2 <= length <= 100_000_000  # the format's own limit

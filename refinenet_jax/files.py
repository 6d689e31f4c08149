"""Paths on disk and in buckets, and files that appear whole or not at all."""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from typing import Any

from etils import epath

from refinenet_jax import buckets
from refinenet_jax.errors import UserError, first_line

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
# gs:/bucket is what becomes of gs://bucket where it was taken for a path on disk.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)|gs(?=:/)")


@dataclasses.dataclass(frozen=True)
class State:
    """What tells two versions of a file apart.

    Attributes:
        size: in bytes.
        modified: nanoseconds since 1970.
    """

    size: int
    modified: int


def path(name: str | os.PathLike[str]) -> epath.Path:
    """The path that a person names: on disk as pathlib's, in a bucket as epath's.

    On disk it is not epath's, whose `stat` tells whole seconds and fails for a user
    without a name.

    Raises:
        UserError: it is of a store that is not served, or in a bucket that cannot be
            read.
    """
    text = os.fspath(name)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return pathlib.Path(text)
    bucket = text.removeprefix(buckets.PREFIX).partition("/")[0]
    if scheme[0] != "gs" or not buckets.holds(text) or not bucket:
        raise UserError(
            f"{text} is no path here: name one on disk, or {buckets.PREFIX}BUCKET/PATH "
            "with the extra gcs (pip install 'refinenet_jax[gcs]')"
        )
    buckets.check(bucket)
    return epath.Path(text)


def in_bucket(path: epath.Path) -> bool:
    """Whether it is in a bucket, and not on a disk of this host."""
    return buckets.holds(path)


def is_folder(path: epath.Path) -> bool:
    """Whether there is a folder; in a bucket, whether there are files below.

    Raises:
        UserError: the bucket cannot be read.
    """
    return buckets.is_folder(os.fspath(path)) if in_bucket(path) else path.is_dir()


def on_mounted_bucket(path: epath.Path) -> bool:
    """Whether it is on disk only in appearance: a bucket through Cloud Storage FUSE."""
    return not in_bucket(path) and buckets.is_mounted(os.path.realpath(path))


def absolute(path: epath.Path) -> epath.Path:
    """Without ~ and dots; epath would make a folder on disk of one in a bucket."""
    return path if in_bucket(path) else path.expanduser().resolve()


def user_cache() -> epath.Path:
    """The user's folder for what can be made again, as the XDG base directories have it."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return path(base).expanduser() / "refinenet_jax"


def matching(pattern: str) -> list[epath.Path]:
    """What a pattern with *, ? and [] stands for, in order."""
    if buckets.holds(pattern):
        path(pattern)  # says what is wrong with the bucket
        return [epath.Path(name) for name in buckets.matching(pattern)]
    return [pathlib.Path(name) for name in sorted(glob.glob(pattern))]


def files_below(folder: epath.Path) -> list[epath.Path]:
    """Every file in a folder and in the folders in it, in order."""
    if in_bucket(folder):
        names = buckets.files_below(os.fspath(folder))
        return sorted(epath.Path(name) for name in names)
    walk = os.walk(folder)
    return sorted(pathlib.Path(here, name) for here, _, names in walk for name in names)


def states(paths: Collection[epath.Path]) -> dict[epath.Path, State]:
    """The state of each file; all are in one bucket, or none is in any.

    In a bucket that is one question for a thousand files.

    Raises:
        FileNotFoundError: one is missing.
    """
    if any(map(in_bucket, paths)):
        return _states_in_bucket(paths)
    found = {}
    for file in paths:
        stat = file.stat()
        found[file] = State(stat.st_size, stat.st_mtime_ns)
    return found


@contextlib.contextmanager
def replacing(path: epath.Path) -> Iterator[epath.Path]:
    """Gives a path on disk to write to, and moves that into place at the end.

    It has the ending of `path`, and lies beside it or, for one in a bucket, in a folder
    of its own: the upload is one piece. Where the block raises, it is deleted, and what
    was at `path` before stays.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    with writing(path):
        if in_bucket(path):
            with scratch() as folder:
                partial = folder / path.name
                yield partial
                upload(partial, path)
            return
        partial = path.with_name(f".partial-{path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            # What was moved is not there any more.
            with contextlib.suppress(OSError):
                partial.unlink()


@contextlib.contextmanager
def writing(path: epath.Path) -> Iterator[None]:
    """Tells of what a disk refuses within as of a file that cannot be written.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path.name} into {path.parent} ({reason(error)}): "
            f"{_remedy(error)}"
        ) from error


@contextlib.contextmanager
def scratch(within: str = "") -> Iterator[epath.Path]:
    """An empty folder on disk that is removed at the end.

    within: the folder to make it in; "": the system's place, TMPDIR.
    """
    if within:
        make_folder(path(within), "config.data.cache_dir")
    with tempfile.TemporaryDirectory(prefix="refinenet-", dir=within or None) as name:
        yield pathlib.Path(name)


@contextlib.contextmanager
def on_disk(path: epath.Path) -> Iterator[epath.Path]:
    """The file itself, or a copy for what reads files on disk only.

    Raises:
        OSError: it is missing or cannot be read.
    """
    if not in_bucket(path):
        yield path
        return
    with scratch() as folder:
        copy = folder / path.name
        buckets.download(os.fspath(path), os.fspath(copy))
        yield copy


def upload(file: epath.Path, target: epath.Path) -> None:
    """Makes a file in a bucket of one on disk, whole or not at all.

    Raises:
        UserError: the store does not take it.
    """
    try:
        buckets.upload(os.fspath(file), os.fspath(target))
    except Exception as error:  # gcsfs, aiohttp and google.auth each raise their own
        raise UserError(
            f"cannot write {target} ({first_line(error)}): see that you may write "
            "there, and start again when the storage answers"
        ) from error


def make_folder(folder: epath.Path, flag: str) -> None:
    """Makes a folder that `flag`, such as "--workdir", names; buckets need none.

    Raises:
        UserError: it cannot be made.
    """
    if in_bucket(folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}={folder} cannot be made: {error}") from error


def rename_folder(folder: epath.Path, target: epath.Path, last: str = "") -> None:
    """Gives a folder another name, which nothing has yet.

    In a bucket every file is copied before the first is removed. The file named `last`
    is removed at the end, so that it tells of a move that was broken off.

    Raises:
        OSError: it cannot be renamed.
    """
    if not in_bucket(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return
    names = list(buckets.files_below(os.fspath(folder)))
    for name in names:
        buckets.copy(name, os.fspath(target) + name.removeprefix(os.fspath(folder)))
    marker = os.fspath(folder / last)
    buckets.remove([name for name in names if name != marker] + [marker])


def remove_folder(folder: epath.Path, first: str = "") -> None:
    """Removes a folder with all that is in it; one that is not there is no error.

    In a bucket the file named `first` goes first: without it the rest is worth nothing.
    """
    if in_bucket(folder):
        names = buckets.files_below(os.fspath(folder))
        buckets.remove(
            sorted(names, key=lambda name: name != os.fspath(folder / first))
        )
    else:
        shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: epath.Path, data: bytes) -> None:
    """Writes a file; see `replacing`.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(path: epath.Path, value: Any) -> None:
    """As indented JSON; NaN is refused, since readers other than Python's do so.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def sha256(path: epath.Path) -> str:
    """Of the content of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: OSError) -> str:
    """Why a file could not be opened, without its name where the system tells."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    return error.strerror or first_line(error)


def _states_in_bucket(paths: Collection[epath.Path]) -> dict[epath.Path, State]:
    """From one listing of the folder that they have in common."""
    common = os.path.commonpath([file.parent.as_posix() for file in paths])
    listed = buckets.files_below(common.replace("gs:/", buckets.PREFIX, 1))
    found = {}
    for file in paths:
        if os.fspath(file) not in listed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        found[file] = _state(listed[os.fspath(file)])
    return found


def _state(about: dict[str, Any]) -> State:
    return State(about["size"], round(about["mtime"].timestamp() * 1e9))


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "make room there or choose another --workdir"
    if error.errno in _IN_THE_WAY:
        return "move away what has the name of a file or folder to be written"
    return "make that folder writable or choose another --workdir"

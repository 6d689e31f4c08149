"""Unpacks archives without TensorFlow, which TFDS's own extraction imports."""

import hashlib
import os
import pathlib
import shutil
import tarfile
import tempfile
import zipfile

from refinenet_jax.errors import UserError


def unpack(archive: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    """Unpacks a .tar, .tgz or .zip once and returns the folder with its content.

    The folder's name depends on the archive's path, size and time, so that another
    archive of the same file name is never taken for this one. It appears complete or
    not at all.

    Raises:
      UserError: the archive is damaged.
    """
    state = archive.stat()
    identity = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = into / f"{archive.stem}-{key}"
    if folder.is_dir():
        return folder
    into.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=into))
    try:
        _extract(archive, partial)
        os.replace(partial, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{archive} cannot be unpacked into {into} ({reason}): is the download "
            "complete, and is there room on the disk?"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _extract(archive: pathlib.Path, into: pathlib.Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            content.extractall(into)
    else:
        with tarfile.open(archive) as content:
            content.extractall(into, filter="data")

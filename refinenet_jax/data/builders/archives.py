"""What is at hand of a data set: folders, and archives unpacked on first need.

Archives are unpacked without TensorFlow, which TFDS's own extraction imports.
"""

import hashlib
import os
import pathlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence

from refinenet_jax import files
from refinenet_jax.data.class_table import Archive
from refinenet_jax.errors import UserError, first_line


class Files:
    """Finds files and folders of a data set as its authors distribute it.

    Args:
      name: the data set, for error messages.
      archives: what its authors distribute.
      folder: where the person put it: unpacked, as archives, or some of each. A folder
        from within the unpacked tree, such as VOCdevkit, stands for the whole.
      downloaded: archive's file name -> where it was downloaded to.
      unpack_dir: where archives are unpacked, never the person's own folder.
    """

    def __init__(
        self,
        name: str,
        archives: Sequence[Archive],
        *,
        folder: pathlib.Path | None,
        downloaded: Mapping[str, pathlib.Path],
        unpack_dir: pathlib.Path,
    ) -> None:
        self._name = name
        self._archives = archives
        self._folder = folder
        self._downloaded = downloaded
        self._unpack_dir = unpack_dir

    def find(self, path: str, within: str = "") -> pathlib.Path | None:
        """The file or folder at `path`, or None where it is not at hand.

        Args:
          path: relative to the root of the archive that holds it.
          within: look in the archive of this file name alone, for archives that hold
            folders of the same name; "" for everywhere.
        """
        for root in [] if within else self._roots():
            if (root / path).exists():
                return root / path
        for archive in self._archives:
            if archive.file == within or (not within and _holds(archive, path)):
                packed = self._packed(archive)
                if packed is not None and archive.holds == (archive.file,):
                    return packed  # no archive: the file itself is wanted
                if packed is not None:
                    found = unpack(packed, self._unpack_dir) / path
                    if found.exists():
                        return found
        return None

    def need(self, path: str, within: str = "") -> pathlib.Path:
        """The same.

        Raises:
          UserError: it is not at hand; the archive that has it is named.
        """
        found = self.find(path, within)
        if found is None:
            raise UserError(self._missing(path, within))
        return found

    def _roots(self) -> list[pathlib.Path]:
        """The person's folder, and the root of the tree that it is a part of."""
        if self._folder is None:
            return []
        roots = [self._folder]
        for archive in self._archives:
            for held in archive.holds:
                parts = pathlib.PurePosixPath(held).parts
                for depth in range(1, len(parts) + 1):
                    if self._folder.parts[-depth:] == parts[:depth]:
                        roots.append(self._folder.parents[depth - 1])
        return roots

    def _packed(self, archive: Archive) -> pathlib.Path | None:
        if archive.file in self._downloaded:
            return self._downloaded[archive.file]
        for root in self._roots():
            if (root / archive.file).is_file():
                return root / archive.file
        return None

    def _missing(self, path: str, within: str) -> str:
        where = (
            f"config.data.manual_dir={str(self._folder)!r}"
            if self._folder
            else "what was downloaded"
        )
        sources = [
            f"{archive.file} from {archive.url}"
            + (" (needs a login)" if archive.login else "")
            for archive in self._archives
            if archive.file == within or (not within and _holds(archive, path))
        ]
        remedy = f": put {' or '.join(sources)} there, packed or not" if sources else ""
        return f"{where} does not hold {self._name}: {path} is missing{remedy}"


def _holds(archive: Archive, path: str) -> bool:
    return any(
        path == held or path.startswith(f"{held}/") or held.startswith(f"{path}/")
        for held in archive.holds
    )


def unpack(archive: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    """Unpacks a .tar, .tgz or .zip once and returns the folder with its content.

    The folder's name depends on the archive's path, size and time, so that another
    archive of the same file name is never taken for this one. It appears complete or
    not at all.

    Raises:
      UserError: the archive is damaged.
    """
    state = files.states([archive])[archive]
    identity = f"{files.absolute(archive)} {state.size} {state.modified}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = into / f"{archive.stem}-{key}"
    if folder.is_dir():
        return folder
    into.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=into))
    try:
        with files.on_disk(archive) as packed:
            _extract(packed, partial)
        os.replace(partial, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(
            f"{archive} cannot be unpacked into {into} ({first_line(error)}): is the "
            "download complete, and is there room on the disk?"
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


def refuse_other_content(file: pathlib.Path, archive: Archive) -> None:
    """Raises UserError where a download has another MD5 than its authors published."""
    if not archive.md5:
        return
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "md5").hexdigest()
    if digest != archive.md5:
        raise UserError(
            f"{archive.url} has MD5 {digest}, not {archive.md5} as published: delete "
            f"{file} to download it again, or download it yourself and name its folder "
            "in config.data.manual_dir"
        )

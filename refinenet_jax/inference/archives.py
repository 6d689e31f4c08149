"""Archives that hold the same bytes for the same files, one file at a time."""

import contextlib
import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

from etils import epath

from refinenet_jax.errors import UserError


@contextlib.contextmanager
def packing(path: epath.Path) -> Iterator[Callable[[str, bytes], None]]:
    """Makes a .zip or .tar.gz; takes (name, content), one file after another.

    Dates and owners are left out.
    """
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:

            def add_to_zip(name: str, data: bytes) -> None:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o644 << 16  # that whoever unpacks it may read
                zipped.writestr(entry, data)  # PNGs are compressed already

            yield add_to_zip
        return
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):

        def add_to_tar(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        yield add_to_tar


def members(path: epath.Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in an archive, in order.

    Raises:
        UserError: it is damaged.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as zipped:
                yield from ((name, zipped.read(name)) for name in zipped.namelist())
            return
        with tarfile.open(path, "r:gz") as tar:
            for entry in tar:
                content = tar.extractfile(entry)
                yield entry.name, content.read() if content else b""
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path.name} is damaged ({error}): check the disk") from error

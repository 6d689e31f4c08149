"""What was finished before a process ended, kept so that the next one goes on."""

import contextlib
import struct
from collections.abc import Iterator

import xxhash
from etils import epath

_HEAD = struct.Struct("<QQ")  # length and digest of a record


class Finished:
    """Records in a file on disk that only grows.

    A process that is killed leaves at most one record that is not whole; it is cut off
    when the file is opened again.

    Args:
        path: of the file; made where there is none.
        about: 32 letters that tell what is recorded; records of anything else are
            thrown away.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: epath.Path, about: str):
        header = about.encode() + b"\n"
        path.touch()
        self._file = path.open("r+b")
        self._places: list[tuple[int, int]] = []  # offset and length
        if self._file.read(len(header)) == header:
            self._end = self._find_records()
        else:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(header)
            self._end = len(header)
        self._file.truncate(self._end)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        for offset, length in self._places:
            self._file.seek(offset)
            yield self._file.read(length)

    def append(self, record: bytes) -> None:
        """Adds a record, which is on its way to the disk when this returns.

        Raises:
            OSError: the disk is full.
        """
        self._file.seek(self._end)
        self._file.write(_head(record))
        self._file.write(record)
        self._file.flush()
        offset = self._end + _HEAD.size
        self._places.append((offset, len(record)))
        self._end = offset + len(record)

    def close(self) -> None:
        """Lets go of the file."""
        with contextlib.suppress(OSError):  # what a full disk did not take
            self._file.close()

    def _find_records(self) -> int:
        """Where the last whole one ends."""
        end = self._file.tell()
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            length, _ = _HEAD.unpack(head)
            record = self._file.read(length)
            if head != _head(record):
                break
            self._places.append((end + _HEAD.size, length))
            end += _HEAD.size + length
        return end


def _head(record: bytes) -> bytes:
    return _HEAD.pack(len(record), xxhash.xxh3_64_intdigest(record))

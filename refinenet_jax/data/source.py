"""Random access to the prepared examples of a split."""

import bisect
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt
from etils import epath

from refinenet_jax.data import channel_moments
from refinenet_jax.data.class_counts import (
    ClassCounts,
    parse_counts,
    read_counts,
    write_counts,
)
from refinenet_jax.data.images import decode_picture
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.errors import UserError, first_line


class Reporter(Protocol):
    """Tells a person what is going on; the module `refinenet_jax.log` is one."""

    def say(self, message: str) -> None:
        """Says one line."""

    def progress(
        self, task: str, total: int | None
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Shows how far a task is; what it gives is called once for each unit."""


class StoredRecords:
    """The records of prepared files by number; damage names its file.

    ArrayRecord keeps a hash of every record and of its own tables and compares them
    when it reads.

    Args:
      records: of all files.
      files: each file and how many records it has, in order.
    """

    def __init__(self, records: Any, files: Sequence[tuple[str, int]]) -> None:
        self._records = records
        self._files = [file for file, _ in files]
        self._ends = list(itertools.accumulate(length for _, length in files))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Any:
        """One record as TFDS decodes it.

        Raises:
          UserError: the file is damaged or cannot be read.
        """
        try:
            return self._records[index]
        except (RuntimeError, OSError) as error:  # the first is ArrayRecord's
            file = self._files[bisect.bisect_right(self._ends, index.__index__())]
            raise UserError(
                f"{file} cannot be read or is damaged ({first_line(error)}): delete its "
                "folder to have the data prepared again"
            ) from error


class Source:
    """The examples of one split by number, encoded as they are stored.

    Can be pickled: a data worker opens the files anew.

    Args:
      records: the stored examples by number.
      fingerprint: see below.
      left_out: see below.
      counts: the files with the class counts of all examples, in order, and of how
        many each.
      kind: see below.
      moments: as `counts`, the files with the moments of the channels.

    Attributes:
      fingerprint: a sha256 that differs when the data set, the split or the files
        that it was prepared from differ.
      left_out: what was wrong with each file that was left out of the data set.
      kind: what all pictures are decoded as.
    """

    def __init__(
        self,
        records: Any,
        fingerprint: str,
        left_out: list[str],
        counts: Mapping[epath.Path, int],
        kind: PictureKind = RGB,
        moments: Mapping[epath.Path, int] | None = None,
    ) -> None:
        self._records = records
        self._counts = counts
        self._moments = moments or {}
        self.kind = kind
        self.fingerprint = fingerprint
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """{"image": bytes, "label": bytes, "name": str}, see `builders.records`."""
        record = self._records[index]
        return {
            "image": record["image"],
            "label": record["label"],
            "name": record["name"].decode("utf-8"),
        }

    def class_pixels(self, report: Reporter) -> ClassCounts:
        """int64 [N,C+1]: pixels of each class and, last, ignored ones, by example.

        From the files beside the examples. One that is not there or not whole is made
        anew from the examples themselves.
        """
        return self._of_each(self._counts, self._count, "counting classes", report)

    def mean_and_std(self, report: Reporter) -> tuple[list[float], list[float]]:
        """Of each channel of all pictures, in their own units; found as class pixels."""
        moments = self._of_each(
            self._moments, self._measure, "measuring channels", report
        )
        # Of grey pictures that are shown as three channels there is one.
        shape = (*moments.shape[:2], self.kind.channels)
        return channel_moments.combined(np.broadcast_to(moments, shape))

    def _of_each(
        self,
        kept: Mapping[epath.Path, int],
        find: Callable[[range, Callable[[], None]], npt.NDArray[Any]],
        task: str,
        report: Reporter,
    ) -> npt.NDArray[Any]:
        """What was found of each example, from the files that keep it.

        kept: each file and of how many examples; find: makes it anew.
        """
        parts: list[npt.NDArray[Any]] = []
        first = 0
        for file, number in kept.items():
            found = read_counts(file)
            if found is None:
                with report.progress(task, number) as on_example:
                    found = find(range(first, first + number), on_example)
                # In a place that others own: found again next time.
                with contextlib.suppress(UserError):
                    write_counts(file, found)
            parts.append(found)
            first += number
        return np.concatenate(parts)

    def _count(self, indices: range, on_example: Callable[[], None]) -> ClassCounts:
        texts = []
        for index in indices:
            texts.append(self._records[index]["class_pixels"])
            on_example()
        return parse_counts(texts)

    def _measure(
        self, indices: range, on_example: Callable[[], None]
    ) -> npt.NDArray[np.float64]:
        moments = []
        for index in indices:
            record = self[index]
            pixels = decode_picture(record["image"], record["name"], self.kind)
            moments.append(channel_moments.moments_of(pixels))
            on_example()
        return np.stack(moments)

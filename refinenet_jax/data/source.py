"""Random access to the prepared examples of a split."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt


class Reporter(Protocol):
    """Tells a person what is going on; the module `refinenet_jax.log` is one."""

    def say(self, message: str) -> None:
        """Says one line."""

    def progress(
        self, task: str, total: int | None
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Shows how far a task is; what it gives is called once for each unit."""


class Source:
    """The examples of one split by number, encoded as they are stored.

    Can be pickled: a data worker opens the files anew.

    Attributes:
      fingerprint: a sha256 that differs when the data set, the split or the files
        that it was prepared from differ.
      left_out: what was wrong with each file that was left out of the data set.
    """

    def __init__(
        self,
        records: Any,
        fingerprint: str,
        left_out: list[str],
        cache: pathlib.Path,
    ) -> None:
        self._records = records
        self._cache = cache
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

    def class_pixels(self, report: Reporter) -> npt.NDArray[np.int64]:
        """int64 [N,C+1]: pixels of each class and, last, ignored ones, by example.

        Read once from all examples, and from a file beside them from then on.
        """
        with contextlib.suppress(OSError, ValueError):
            return np.load(self._cache, allow_pickle=False)
        rows = []
        with report.progress("counting classes", len(self)) as on_example:
            for index in range(len(self)):
                words = self._records[index]["class_pixels"].split()
                rows.append([int(word) for word in words])
                on_example()
        counts = np.array(rows, np.int64)
        partial = self._cache.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a place that others own: count next time
            with partial.open("wb") as file:
                np.save(file, counts)
            os.replace(partial, self._cache)
        return counts

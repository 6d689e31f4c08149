"""Several processes of a run, each a thread of this one."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from refinenet_jax import processes


class Several:
    """So many processes, which meet in `gather` and `process_allgather`.

    Attributes:
        largest: bytes of the largest array that came out of it.
    """

    def __init__(self, count: int, monkeypatch):
        self.largest = 0
        self._count = count
        self._given: list[Any] = [None] * count
        self._meeting = threading.Barrier(count, timeout=60)
        self._here = threading.local()
        monkeypatch.setattr(processes.jax, "process_count", lambda: count)
        monkeypatch.setattr(processes.jax, "process_index", lambda: self._here.index)
        monkeypatch.setattr(processes, "gather", self._gather)
        allgather = self._allgather
        monkeypatch.setattr(processes.multihost_utils, "process_allgather", allgather)

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What each process returns of `work`, which is given its number."""

        def run(index: int) -> Any:
            self._here.index = index
            try:
                return work(index)
            except BaseException:
                self._meeting.abort()
                raise

        with ThreadPoolExecutor(self._count) as threads:
            return list(threads.map(run, range(self._count)))

    def _gather(self, value: Any, *_: Any) -> list[Any]:
        self._given[self._here.index] = value
        self._meeting.wait()
        gathered = list(self._given)
        self._meeting.wait()
        return gathered

    def _allgather(self, array: np.ndarray) -> np.ndarray:
        assert array.dtype.itemsize <= 4 or array.size == 1, "narrowed on devices"
        gathered = np.stack(self._gather(array))
        self.largest = max(self.largest, gathered.nbytes)
        return gathered

"""TensorBoard's files of a run."""

import contextlib
import time

import numpy as np
from etils import epath

from refinenet_jax import files


class Events:
    """Scalars and pictures for TensorBoard.

    On disk one file grows. In a bucket, where nothing is appended to a file, each file
    holds what came between two pictures, and is uploaded whole at every `flush`.
    """

    def __init__(self, folder: epath.Path, first_step: int):
        """first_step: after which a run goes on; what is there of later steps is hidden."""
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._local = folder
        if files.in_bucket(folder):
            self._local = self._stack.enter_context(files.scratch())
        # purge_step hides what a killed run wrote beyond its last checkpoint.
        self._begin(purge_step=first_step + 1)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a value to a curve."""
        self._writer.add_scalar(name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Adds uint8 [H,W,3] and makes sure that all until now is kept."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        if not files.in_bucket(self._folder):
            self._writer.flush()
        else:
            self._end()
            files.remove_folder(self._local)
            self._begin()

    def flush(self) -> None:
        """Writes what is held back, but for what came in this moment."""
        self._writer.flush()
        self._upload()

    def close(self) -> None:
        """Writes all there is."""
        self._end()
        self._stack.close()

    def _upload(self) -> None:
        if files.in_bucket(self._folder):
            for file in files.files_below(self._local):
                files.upload(file, self._folder / file.name)

    def _end(self) -> None:
        self._writer.close()
        self._upload()

    def _begin(self, purge_step: int | None = None) -> None:
        # Takes seconds where torch is installed, which it then imports.
        from tensorboardX import SummaryWriter

        # Names begin with the second, and TensorBoard reads files in their order.
        self._writer = SummaryWriter(
            str(self._local),
            purge_step=purge_step,
            filename_suffix=f".{time.time_ns() % 10**9:09}",
        )

"""What a training run leaves behind of its losses: train.jsonl, TensorBoard."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from refinenet_jax.files import write_bytes
from refinenet_jax.log import duration, say


class TrainLog:
    """Gathers the losses of a run and writes them when asked.

    Losses stay on the devices until `write`, so that no step waits for the host.
    """

    def __init__(
        self, workdir: Path, *, first_step: int, num_steps: int, batch_size: int
    ):
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._pending: dict[int, Mapping[str, jax.Array]] = {}
        self._start = time.monotonic()
        self._restart_window()
        self._path = workdir / "train.jsonl"
        self._summary = None
        if jax.process_index() == 0:
            # Takes seconds where torch is installed, which it then imports.
            from tensorboardX import SummaryWriter

            _drop_lines_after(self._path, first_step)
            # purge_step hides what a killed run wrote beyond its last checkpoint.
            self._summary = SummaryWriter(str(workdir), purge_step=first_step + 1)

    @contextlib.contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Counts the time inside as waiting for the data."""
        start = time.monotonic()
        yield
        self._input_seconds += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside, spent on evaluating, out of images_per_second."""
        start = time.monotonic()
        yield
        self._window_start += time.monotonic() - start

    def _restart_window(self) -> None:
        self._pending.clear()
        self._window_start = time.monotonic()
        self._input_seconds = 0.0

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes what a step returned, float32 [] each."""
        self._pending[step] = metrics

    def non_finite_steps(self) -> list[int]:
        """Steps since the last `write` with a metric that is no finite number; waits."""
        return [
            step
            for step, metrics in jax.device_get(self._pending).items()
            if not np.all(np.isfinite(list(metrics.values())))
        ]

    def write(self, step: int) -> None:
        """One line for the steps since the last; waits for the devices."""
        metrics = jax.device_get(list(self._pending.values()))
        seconds = time.monotonic() - self._window_start
        record = {name: float(value) for name, value in metrics[-1].items()}
        record["loss_mean"] = float(np.mean([m["loss"] for m in metrics]))
        record["images_per_second"] = len(metrics) * self._batch_size / seconds
        record["input_share"] = min(self._input_seconds / seconds, 1.0)
        record["seconds"] = time.monotonic() - self._start
        self._tell(
            step, record, seconds_left=(self._num_steps - step) * seconds / len(metrics)
        )
        self._restart_window()

    def _tell(self, step: int, record: dict[str, float], seconds_left: float) -> None:
        if self._summary is None:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **record}, allow_nan=False) + "\n")
        for name, value in record.items():
            self._summary.add_scalar(f"train/{name}", value, step)
        say(
            f"step {step}/{self._num_steps}  loss {record['loss_mean']:.4f}  "
            f"learning rate {record['learning_rate']:.2e}  "
            f"{record['images_per_second']:.1f} images/s  {duration(seconds_left)} left"
        )
        if record["input_share"] > 0.5:
            say(
                f"the devices waited for data {record['input_share']:.0%} of the time: "
                "raise config.data.num_workers or config.data.num_threads"
            )

    def evaluation(
        self, step: int, record: Mapping[str, Any], strip: np.ndarray
    ) -> None:
        """What eval.json holds and its pictures, uint8 [H,W,3], for TensorBoard."""
        if self._summary is None:
            return
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"):
            self._summary.add_scalar(f"eval/{name}", record[name], step)
        self._summary.add_image("eval/pictures", strip, step, dataformats="HWC")
        self._summary.flush()

    def close(self) -> None:
        """Writes what TensorBoard still holds back."""
        if self._summary is not None:
            self._summary.close()


def _drop_lines_after(path: Path, step: int) -> None:
    """A run that goes on from `step` writes the lines after it again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= step]
        write_bytes(path, "".join(kept).encode())

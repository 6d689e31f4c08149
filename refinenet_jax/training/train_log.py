"""What a training run leaves behind: train.jsonl, TensorBoard's files, its page."""

import collections
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath

from refinenet_jax import files
from refinenet_jax.errors import UserError
from refinenet_jax.log import duration, say
from refinenet_jax.training.events import Events
from refinenet_jax.training.pace import Pace
from refinenet_jax.training.page import RunPage

# Steps that the host may be ahead of the devices: enough to keep them busy, and few
# enough that a run that ends soon, or hangs, is where it seems to be.
_AHEAD = 2


class TrainLog:
    """Gathers the losses of a run and writes them when asked.

    Losses stay on the devices until `write`, so that no step waits for the host.
    """

    def __init__(
        self,
        workdir: epath.Path,
        *,
        first_step: int,
        num_steps: int,
        batch_size: int,
        eval_every: int = 0,
        title: str = "",
        made_with: Mapping[str, object] | None = None,
    ):
        """title, made_with: of the page; see `RunPage`."""
        self._num_steps = num_steps
        self._pace = Pace(first_step, num_steps, eval_every)
        self._batch_size = batch_size
        self._pending: dict[int, Mapping[str, jax.Array]] = {}
        self._meter = ThreadPoolExecutor(1)
        self._finished: collections.deque[Future[float]] = collections.deque()
        self._start = time.monotonic()
        self._restart_window()
        self._path = workdir / "train.jsonl"
        self._events = None
        if jax.process_index() == 0:
            self._lines = _drop_lines_after(self._path, first_step)
            self._events = Events(workdir, first_step)
            self._page = RunPage(
                workdir,
                title=title,
                made_with=made_with or {},
                lines=self._lines,
                first_step=first_step,
                num_steps=num_steps,
            )

    @contextlib.contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Counts the time inside, as far as the devices had nothing to do in it."""
        start = time.monotonic()
        yield
        last = self._finished[-1] if self._finished else None
        if last is None or last.done():
            idle_since = max(start, last.result()) if last else start
            self._input_seconds += time.monotonic() - idle_since

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside, spent on evaluating, out of images_per_second."""
        start = time.monotonic()
        with self._pace.evaluating():
            yield
        self._window_start += time.monotonic() - start

    def seconds_left(self) -> float | None:
        """Until the end of the run, evaluations included; None: not known yet."""
        return self._pace.seconds_left()

    def _restart_window(self) -> None:
        self._pending.clear()
        self._window_start = time.monotonic()
        self._input_seconds = 0.0

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes what a step returned, float32 [] each; waits for an earlier one."""
        self._pending[step] = metrics
        self._pace.step(step)
        self._finished.append(self._meter.submit(_time_when_ready, metrics))
        if len(self._finished) > _AHEAD:
            self._finished.popleft().result()

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
        self._tell(step, record)
        self._restart_window()

    def _tell(self, step: int, record: dict[str, float]) -> None:
        if self._events is None:
            return
        self._append(json.dumps({"step": step, **record}, allow_nan=False) + "\n")
        for name, value in record.items():
            self._events.scalar(f"train/{name}", value, step)
        if files.in_bucket(self._path):
            self._events.flush()
        left = self.seconds_left()
        self._page.add({"step": step, **record}, left)
        say(
            f"step {step}/{self._num_steps}  loss {record['loss_mean']:.4f}  "
            f"learning rate {record['learning_rate']:.2e}  "
            f"{record['images_per_second']:.1f} images/s"
            + ("" if left is None else f"  {duration(left)} left")
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
        if self._events is None:
            return
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"):
            self._events.scalar(f"eval/{name}", record[name], step)
        self._events.picture("eval/pictures", strip, step)
        self._page.evaluation(step, record, strip)

    def close(self) -> None:
        """Writes what TensorBoard still holds back, and the page for the last time."""
        self._meter.shutdown(wait=False)
        if self._events is not None:
            self._events.close()
            self._page.close()

    def _append(self, line: str) -> None:
        """To train.jsonl, which in a bucket is written anew, whole."""
        if files.in_bucket(self._path):
            self._lines.append(line)
            files.write_bytes(self._path, "".join(self._lines).encode())
        else:
            with self._path.open("a") as file:
                file.write(line)


def _time_when_ready(metrics: Mapping[str, jax.Array]) -> float:
    jax.block_until_ready(metrics)
    return time.monotonic()


def _drop_lines_after(path: epath.Path, step: int) -> list[str]:
    """A run that goes on from `step` writes the lines after it again; gives the rest."""
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): move it away"
        ) from error
    # A run that was killed leaves a line without an end.
    steps = [_step_of(line) for line in lines if line.endswith(b"\n")]
    if None in steps:
        say(f"left out {steps.count(None)} lines of {path} that make no sense")
    kept = [
        line.decode()
        for line, found in zip(lines, steps, strict=False)
        if found is not None and found <= step
    ]
    files.write_bytes(path, "".join(kept).encode())
    return kept


def _step_of(line: bytes) -> int | None:
    """Of a line of train.jsonl; None where it is damaged."""
    try:
        record = json.loads(line)
        return record["step"] if isinstance(record["step"], int) else None
    except (KeyError, TypeError, ValueError):
        return None

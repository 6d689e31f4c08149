"""The page of a run, report.html: written anew while it trains, to be left open."""

import dataclasses
import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from etils import epath
from PIL import Image

from refinenet_jax import curves, files, pages
from refinenet_jax.log import duration

_EVERY = 10.0  # seconds between two pages, at least
_REFRESH = 15  # seconds after which a browser asks for the next
_MOST_STRIPS = 12  # of more evaluations, every other is left out
_WIDEST = 960  # pixels, of a strip on the page
_SCORES = ("mean_iou", "pixel_accuracy", "mean_accuracy")


@dataclasses.dataclass(frozen=True)
class _Strip:
    """Pictures of an evaluation: where they are in full, and as a data URI."""

    step: int
    file: str
    picture: str


class RunPage:
    """What a run did so far, of one process.

    Args:
        workdir: of the run; its earlier evaluations are shown as well.
        title: such as data set and network.
        made_with: facts for the end of the page.
        lines: of train.jsonl until now.
        first_step: after which the run begins; evaluations after it are made again.
        num_steps: after which it ends.
    """

    def __init__(
        self,
        workdir: epath.Path,
        *,
        title: str,
        made_with: Mapping[str, object],
        lines: Sequence[str],
        first_step: int,
        num_steps: int,
    ):
        self._workdir = workdir
        self._title = title
        self._made_with = made_with
        self._num_steps = num_steps
        self._step = first_step
        self._written = -_EVERY
        self._records: list[Mapping[str, Any]] = [json.loads(line) for line in lines]
        self._scores: list[dict[str, Any]] = []
        self._strips: list[_Strip] = []
        self._worst: _Strip | None = None
        for step in self._evaluated(first_step):
            self._take(step)
        self._write("beginning")

    def add(self, record: Mapping[str, Any], seconds_left: float | None) -> None:
        """Takes what a line of train.jsonl holds."""
        self._records.append(record)
        self._step = record["step"]
        if time.monotonic() - self._written >= _EVERY:
            left = "" if seconds_left is None else f", {duration(seconds_left)} left"
            self._write("training" + left)

    def evaluation(
        self, step: int, record: Mapping[str, Any], strip: np.ndarray
    ) -> None:
        """Takes what eval.json holds and its pictures, uint8 [H,W,3].

        The files of the evaluation are in the workdir.
        """
        self._step = step
        self._scores.append({"step": step, **{name: record[name] for name in _SCORES}})
        self._show(step, strip)
        self._write("training")

    def close(self) -> None:
        """Writes the page for the last time: browsers ask for no other."""
        done = self._step >= self._num_steps
        self._write("finished" if done else "ended before its last step", last=True)

    def _evaluated(self, until: int) -> list[int]:
        """Steps whose evaluations are in the workdir."""
        folder = self._workdir / "eval"
        names = [p.stem for p in folder.glob("*.json")] if folder.is_dir() else []
        steps = sorted(int(name) for name in names if name.isdigit())
        return [step for step in steps if step <= until]

    def _take(self, step: int) -> None:
        """An earlier evaluation, as far as its files can be read."""
        folder = self._workdir / "eval"
        try:
            record = json.loads((folder / f"{step}.json").read_text())
            self._scores.append(
                {"step": step, **{name: record[name] for name in _SCORES}}
            )
            content = (folder / f"{step}.png").read_bytes()
            strip = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        except (OSError, ValueError, KeyError, TypeError):
            return
        self._show(step, strip)

    def _show(self, step: int, strip: np.ndarray) -> None:
        if strip.size:
            self._strips.append(_Strip(step, f"eval/{step}.png", _small(strip)))
        if len(self._strips) > _MOST_STRIPS:
            # The first and the latest stay.
            self._strips = self._strips[:-1:2] + self._strips[-1:]
        worst = f"eval/{step}_worst.jpg"
        try:
            content = (self._workdir / worst).read_bytes()
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            self._worst = _Strip(step, worst, _small(pixels))
        except OSError:
            self._worst = None

    def _write(self, state: str, *, last: bool = False) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        mean_iou = {row["step"]: row["mean_iou"] for row in self._scores}
        values = {
            "title": self._title,
            "state": f"Step {self._step:,} of {self._num_steps:,}, {state}. As of {now} "
            "UTC.",
            "refresh": 0 if last else _REFRESH,
            "width": curves.WIDTH,
            "height": curves.HEIGHT,
            "left": curves.LEFT,
            "right": curves.RIGHT,
            "curves": self._curves(),
            "evaluations": self._evaluations(),
            "worst": self._worst,
            "strips": [
                {**vars(strip), "mean_iou": _percent(mean_iou.get(strip.step))}
                for strip in reversed(self._strips)
            ],
            "made_with": pages.facts(self._made_with),
        }
        page = pages.render("run.html", values)
        files.write_bytes(self._workdir / "report.html", page)
        self._written = time.monotonic()

    def _curves(self) -> list[curves.Curve]:
        drawn = []
        for title, name in (
            ("loss", "loss_mean"),
            ("learning rate", "learning_rate"),
            ("images per second", "images_per_second"),
        ):
            # Lines of an earlier version may hold less.
            found = [(row["step"], row[name]) for row in self._records if name in row]
            steps, values = zip(*found, strict=True) if found else ((), ())
            drawn.append(curves.curve(title, steps, values, self._num_steps))
        known = [row for row in self._scores if row["mean_iou"] is not None]
        drawn.append(
            curves.curve(
                "mean IoU, %",
                [row["step"] for row in known],
                [100 * row["mean_iou"] for row in known],
                self._num_steps,
                digits=".2f",
                marked=True,
            )
        )
        return [each for each in drawn if each is not None]

    def _evaluations(self) -> list[dict[str, Any]]:
        """The latest first."""
        known = [row["mean_iou"] or 0.0 for row in self._scores]
        best = known.index(max(known)) if known else None
        rows = [
            {
                "step": f"{row['step']:,}",
                "best": index == best,
                **{name: _percent(row[name]) for name in _SCORES},
            }
            for index, row in enumerate(self._scores)
        ]
        return rows[::-1]


def _small(pixels: np.ndarray) -> str:
    """A strip as a data URI, no wider than the page needs."""
    height, width, _ = pixels.shape
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return pages.picture(pixels, "JPEG")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"

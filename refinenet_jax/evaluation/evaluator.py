"""Scores a network on a split, and writes what it found."""

import collections
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx

from refinenet_jax import files, log, pictures, preemption, watchdog
from refinenet_jax.data.datasets import Dataset
from refinenet_jax.data.mixture import decode
from refinenet_jax.data.pipeline import eval_examples
from refinenet_jax.data.source import Source
from refinenet_jax.data.transforms import Example
from refinenet_jax.evaluation import boundary, counting, intervals, metrics
from refinenet_jax.evaluation.report import Case, choose_cases, write_report
from refinenet_jax.evaluation.tally import Tally, tally
from refinenet_jax.inference.predictor import Group, Predictor, telling_of_memory
from refinenet_jax.provenance import provenance

_NUM_ROWS = 6
_NUM_WORST = 4


class Evaluator:
    """Evaluates a network on one split, as often as it is asked.

    Args:
        predictor: of the network; it has weights while they are evaluated.
        dataset: classes and colours.
        split: its name.
        source: its examples.
        num_threads: that decode and count.
        bootstrap_samples: behind the 95% intervals; 0: none.
        boundary_width: of the boundary scores of `audit`, as a share of an image's
            diagonal; 0: none.
        seed: of the intervals.
        shown: how pictures that are not RGB are shown.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: Dataset,
        split: str,
        source: Source,
        *,
        num_threads: int,
        bootstrap_samples: int,
        boundary_width: float,
        seed: int,
        shown: pictures.Shown = pictures.STRETCHED,
    ):
        self._predictor = predictor
        self._dataset = dataset
        self._split = split
        self._source = source
        self._num_threads = num_threads
        self._bootstrap_samples = bootstrap_samples
        self._boundary_width = boundary_width
        self._seed = seed
        self._shown = shown

    def evaluate(
        self, step: int, params: nnx.State, batch_stats: nnx.State, workdir: epath.Path
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Scores the weights and writes eval.json and the files of their step.

        Nothing of the weights is kept.

        Returns:
            What eval.json holds, with intervals in the first process alone, and some
            images beside truth and prediction, uint8 [H,W,3].

        Raises:
            Preempted: the program is to end; nothing was written.
        """
        with self._predictor.loaded(params, batch_stats):
            record, counted = self._score(step, boundary_width=0)
            strip = self._write(record, counted, workdir)
            if jax.process_index() == 0:
                self._write_worst(step, counted, workdir)
        return record, strip

    def audit(
        self, step: int, params: nnx.State, batch_stats: nnx.State, workdir: epath.Path
    ) -> dict[str, Any]:
        """As `evaluate`, with scores along boundaries and a report.

        Raises:
            Preempted: the program is to end; nothing was written.
        """
        with self._predictor.loaded(params, batch_stats):
            record, counted = self._score(step, boundary_width=self._boundary_width)
            self._write(record, counted, workdir)
            if jax.process_index() == 0:
                scores = metrics.image_scores(counted.image_counts)
                cases = self._cases(scores)
                write_report(workdir / "eval", record, cases, self._dataset.palette)
        return record

    def _score(
        self, step: int, *, boundary_width: float
    ) -> tuple[dict[str, Any], Tally]:
        start = time.monotonic()
        processes = jax.process_count()
        share = range(jax.process_index(), len(self._source), processes)
        examples = eval_examples(
            self._source,
            process_index=jax.process_index(),
            process_count=processes,
            num_threads=self._num_threads,
        )
        with log.progress("evaluating", len(share)) as on_image, telling_of_memory():
            counted = tally(
                self._predictor,
                _while_asking(
                    zip(share, examples, strict=True),
                    -(-len(self._source) // processes),
                ),
                self._dataset.num_classes,
                kept=_evenly_spread(share, _NUM_ROWS),
                boundary_width=boundary_width,
                num_threads=self._num_threads,
                on_image=on_image,
            )
        seconds = time.monotonic() - start
        return self._record(step, counted, boundary_width, seconds), counted

    def _record(
        self,
        step: int,
        counted: Tally,
        boundary_width: float,
        seconds: float,
    ) -> dict[str, Any]:
        """What eval.json holds."""
        names = self._dataset.class_names
        own = metrics.own_convention(self._dataset.name)
        counts = counting.class_counts(counted.matrix)
        along_boundaries = boundary.summary(
            counted.boundary_counts, own, names, boundary_width
        )
        return {
            "step": step,
            "dataset": self._dataset.name,
            "split": self._split,
            "num_images": counted.num_images,
            **metrics.scores(counts, own),
            **metrics.by_convention(counts, own, names),
            "per_class_iou": metrics.by_class(metrics.iou(counts), names),
            "intervals": self._intervals(counted, own),
            "boundary": along_boundaries if boundary_width else None,
            "confusion_matrix": counted.matrix.tolist(),
            "ignored_pixels": counted.ignored_pixels,
            "protocol": self._predictor.protocol.to_json(),
            "compilations": self._predictor.compilations,
            "seconds": seconds,
            "images_per_second": counted.num_images / seconds,
            "data_fingerprint": self._source.fingerprint,
            "provenance": provenance(),
        }

    def _intervals(
        self, counted: Tally, convention: metrics.Convention
    ) -> dict[str, Any] | None:
        # Only the first process knows of each image.
        if not self._bootstrap_samples or jax.process_index() != 0:
            return None
        found = intervals.bootstrap(
            counted.image_counts,
            convention,
            samples=self._bootstrap_samples,
            seed=self._seed,
        )
        return found.to_json(self._dataset.class_names)

    def _write(
        self, record: dict[str, Any], counted: Tally, workdir: epath.Path
    ) -> np.ndarray:
        """Writes eval.json and the files of the step; returns the pictures."""
        step = record["step"]
        strip = pictures.strip(
            [(self._shown.rgb(image), a, b) for image, a, b in counted.rows],
            self._dataset.class_names,
            self._dataset.palette,
        )
        if jax.process_index() == 0:
            files.write_bytes(
                workdir / f"eval/{step}.png", pictures.encode(strip, "PNG")
            )
            files.write_json(workdir / f"eval/{step}.json", record)
            files.write_json(workdir / "eval.json", record)
        return strip

    def _write_worst(self, step: int, counted: Tally, workdir: epath.Path) -> None:
        scores = metrics.image_scores(counted.image_counts)
        order = np.argsort(scores, kind="stable")  # NaN comes last
        worst = order[: min(_NUM_WORST, np.count_nonzero(~np.isnan(scores)))].tolist()
        shown = self._again(worst)
        strip = pictures.strip(
            [
                (self._shown.rgb(example["image"]), example["label"], found)
                for example, found in shown
            ],
            self._dataset.class_names,
            self._dataset.palette,
            [
                f"{example['name']}, mean IoU {100 * scores[index]:.1f} %"
                for index, (example, _) in zip(worst, shown, strict=True)
            ],
        )
        if strip.size:
            data = pictures.encode(strip, "JPEG")
            files.write_bytes(workdir / f"eval/{step}_worst.jpg", data)

    def _cases(self, scores: np.ndarray) -> Iterator[Case]:
        """The images of the report; scores: float64 [N]."""
        cases = choose_cases(scores)
        shown = self._again([index for _, index in cases])
        for (kind, index), (example, prediction) in zip(cases, shown, strict=True):
            yield Case(
                kind,
                example["name"],
                float(scores[index]),
                self._shown.rgb(example["image"]),
                example["label"],
                prediction,
            )

    def _again(self, indices: Sequence[int]) -> list[tuple[Example, np.ndarray]]:
        """Some examples and what is predicted of them, once more."""
        examples = [decode(self._source[i], self._source.kind) for i in indices]
        groups: dict[Group, list[int]] = collections.defaultdict(list)
        for place, example in enumerate(examples):
            groups[self._predictor.group(example["image"].shape[:2])].append(place)
        found: dict[int, np.ndarray] = {}
        size = self._predictor.batch_size
        for places in groups.values():
            for first in range(0, len(places), size):
                batch = places[first : first + size]
                images = [examples[place]["image"] for place in batch]
                found.update(zip(batch, self._predictor.predict(images), strict=True))
        return [(example, found[place]) for place, example in enumerate(examples)]


def _while_asking(
    examples: Iterable[tuple[int, Example]], rounds: int
) -> Iterator[tuple[int, Example]]:
    """Passes the examples on, one a round at most, and asks in each whether to end.

    rounds: the same number in all processes.

    Raises:
        Preempted: the program is to end.
    """
    examples = iter(examples)
    for _ in range(rounds):
        if preemption.reached():
            raise preemption.Preempted("stopped during an evaluation")
        yield from itertools.islice(examples, 1)
        watchdog.moved_on()


def _evenly_spread(numbers: range, count: int) -> set[int]:
    """At most `count` of them, from the first to the last."""
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers)))
    return {numbers[place] for place in places.round().astype(int)}

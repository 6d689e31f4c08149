"""Predicts all examples of a data set and counts what comes back."""

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from refinenet_jax.evaluation.boundary import NUM_BANDS, count_boundaries
from refinenet_jax.evaluation.counting import Counts, class_counts, count_on_devices
from refinenet_jax.inference.predictor import Predictor
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import Row
from refinenet_jax.processes import rows_of_all, sum_over_processes

Example = Mapping[str, Any]
Numbered = tuple[int, Example]

_ON_THEIR_WAY = 2  # batches that the devices may be behind the host


@dataclasses.dataclass
class Tally:
    """What was counted, over the examples of all processes.

    Attributes:
        matrix: int64 [C,C], pixels by true class (row) and predicted class (column).
        image_counts: int64 [N,C,3] of each image of the split, in the first process;
            [0,C,3] in the others. See `counting.class_counts`.
        boundary_counts: int64 [NUM_BANDS,C,3]; see `boundary.count_boundaries`.
        ignored_pixels: pixels labelled 255.
        num_images: how many images were scored.
        rows: image [H,W,C], label uint8 [H,W] and prediction uint8 [H,W] of the
            examples of this process that were to be kept, in order.
    """

    matrix: np.ndarray
    image_counts: Counts
    boundary_counts: Counts
    ignored_pixels: int = 0
    num_images: int = 0
    rows: list[Row] = dataclasses.field(default_factory=list)


def tally(
    predictor: Predictor,
    examples: Iterable[Numbered],
    num_classes: int,
    *,
    kept: Collection[int],
    boundary_width: float,
    num_threads: int,
    on_image: Callable[[], None],
) -> Tally:
    """Predicts every example once and counts at the label's own size.

    All processes must call this; each of them gets what all have counted, and the first
    of each image.

    Args:
        predictor: with the weights loaded.
        examples: this process's share of the split: the number of each example there
            and {"image": [H,W,C], "label": uint8 [H,W]}.
        num_classes: of the data set.
        kept: numbers of the examples to keep with their predictions.
        boundary_width: see `boundary.count_boundaries`; 0: boundaries are not counted.
        num_threads: that count boundaries while the devices predict.
        on_image: called for each example, to show progress.
    """
    counted = Tally(
        matrix=np.zeros((num_classes, num_classes), np.int64),
        image_counts=np.zeros((0, num_classes, 3), np.int64),
        boundary_counts=np.zeros((NUM_BANDS, num_classes, 3), np.int64),
    )
    with ThreadPoolExecutor(num_threads) as threads:
        counter = _Counter(predictor, counted, kept, boundary_width, threads)
        for index, example in examples:
            counter.take(index, example)
            on_image()
        counter.finish()
    return _over_processes(counted, counter.image_counts)


class _Counter:
    """Sends examples to the devices in groups and counts what comes back.

    The host prepares the next batches while the devices work on these, and threads
    count boundaries; of both only so many wait that memory stays bounded.

    Attributes:
        image_counts: int64 [C,3] of each example that came back, by its number.
    """

    def __init__(
        self,
        predictor: Predictor,
        counted: Tally,
        kept: Collection[int],
        boundary_width: float,
        threads: ThreadPoolExecutor,
    ):
        self.image_counts: dict[int, Counts] = {}
        self._predictor = predictor
        self._counted = counted
        self._kept = kept
        self._rows: dict[int, Row] = {}
        self._boundary_width = boundary_width
        self._threads = threads
        self._groups: dict[Any, list[Numbered]] = collections.defaultdict(list)
        self._on_their_way: collections.deque[
            tuple[Sequence[Numbered], jax.Array, jax.Array]
        ] = collections.deque()
        self._boundaries: collections.deque[Future[Counts]] = collections.deque()

    def take(self, index: int, example: Example) -> None:
        """Predicts it as soon as there are enough that can run together."""
        key = self._predictor.group(example["image"].shape[:2])
        self._groups[key].append((index, example))
        if len(self._groups[key]) == self._predictor.batch_size:
            self._send(self._groups.pop(key))
        self._counted.ignored_pixels += int((example["label"] == IGNORE_LABEL).sum())
        self._counted.num_images += 1

    def finish(self) -> None:
        """Predicts the rest and waits for all that is still on its way."""
        for group in self._groups.values():
            self._send(group)
        while self._on_their_way:
            self._receive()
        while self._boundaries:
            self._counted.boundary_counts += self._boundaries.popleft().result()
        self._counted.rows = [self._rows[index] for index in sorted(self._rows)]

    def _send(self, group: Sequence[Numbered]) -> None:
        images = [example["image"] for _, example in group]
        labels = [example["label"] for _, example in group]
        classes = self._predictor.start(images)
        num_classes = len(self._counted.matrix)
        layout = self._predictor.layout
        matrices = count_on_devices(classes, labels, num_classes, layout)
        self._on_their_way.append((group, classes, matrices))
        if len(self._on_their_way) > _ON_THEIR_WAY:
            self._receive()

    def _receive(self) -> None:
        group, classes, device_matrices = self._on_their_way.popleft()
        matrices = np.asarray(device_matrices)
        self._counted.matrix += matrices.sum(axis=0, dtype=np.int64)
        indices = [index for index, _ in group]
        counts = class_counts(matrices[: len(group)])
        self.image_counts.update(zip(indices, counts, strict=True))
        if self._boundary_width or any(index in self._kept for index in indices):
            for (index, example), padded in zip(
                group, np.asarray(classes), strict=False
            ):
                height, width = example["label"].shape
                self._receive_image(index, example, padded[:height, :width])

    def _receive_image(
        self, index: int, example: Example, prediction: np.ndarray
    ) -> None:
        """One prediction, uint8 [H,W]."""
        label = example["label"]
        if index in self._kept:
            self._rows[index] = (example["image"], label, prediction.copy())
        if self._boundary_width:
            counting = self._threads.submit(
                count_boundaries,
                np.ascontiguousarray(prediction),
                label,
                len(self._counted.matrix),
                self._boundary_width,
            )
            self._boundaries.append(counting)
            if len(self._boundaries) > 4 * self._predictor.batch_size:
                self._counted.boundary_counts += self._boundaries.popleft().result()


def _over_processes(counted: Tally, image_counts: Mapping[int, Counts]) -> Tally:
    """Adds up, and brings the counts of the images together."""
    arrays = [counted.matrix, counted.boundary_counts]
    flat = np.concatenate(
        [*map(np.ravel, arrays), [counted.ignored_pixels, counted.num_images]]
    )
    total = sum_over_processes(flat)
    ends = np.cumsum([array.size for array in arrays])
    *parts, numbers = np.split(total, ends)
    matrix, boundary_counts = (
        part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)
    )
    ignored, images = numbers.tolist()
    return Tally(
        matrix,
        _in_order(image_counts, num_classes=len(matrix)),
        boundary_counts,
        ignored,
        images,
        counted.rows,
    )


def _in_order(image_counts: Mapping[int, Counts], *, num_classes: int) -> Counts:
    """What the processes counted of their images → `Tally.image_counts`."""
    rows = np.zeros((len(image_counts), 1 + 3 * num_classes), np.int64)
    for row, (index, counts) in zip(rows, image_counts.items(), strict=True):
        row[0], row[1:] = index, counts.ravel()
    rows = rows_of_all(rows)
    rows = rows[np.argsort(rows[:, 0])]
    return rows[:, 1:].reshape(-1, num_classes, 3)

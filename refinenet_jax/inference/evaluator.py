"""Scores a network on all examples of a data set."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from refinenet_jax.inference.predictor import Predictor
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.sharding import sum_over_processes

Row = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass
class Evaluation:
    """What was counted, over the examples of all processes.

    Attributes:
        matrix: int64 [C,C], pixels by true class (row) and predicted class (column).
        ignored_pixels: pixels labelled 255.
        num_images: how many images were scored.
        rows: image uint8 [H,W,3], label uint8 [H,W] and prediction uint8 [H,W] of this
            process's first examples.
    """

    matrix: np.ndarray
    ignored_pixels: int = 0
    num_images: int = 0
    rows: list[Row] = dataclasses.field(default_factory=list)


def evaluate(
    predictor: Predictor,
    examples: Iterable[Mapping[str, Any]],
    num_classes: int,
    *,
    num_rows: int,
    on_image: Callable[[], None],
) -> Evaluation:
    """Predicts every example once and counts at the label's own size.

    Args:
        predictor: with the weights loaded.
        examples: this process's share of {"image": uint8 [H,W,3], "label": uint8 [H,W]}.
        num_classes: of the data set.
        num_rows: how many of the first examples to keep with their predictions.
        on_image: called for each example, to show progress.
    """
    counted = Evaluation(np.zeros((num_classes, num_classes), np.int64))
    # The host prepares the next batches while the devices work on these.
    on_their_way: collections.deque[jax.Array] = collections.deque()
    first_rows: dict[int, Row] = {}

    def score(group: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Predicts the examples of one padded shape and counts them."""
        images = [example["image"] for _, example in group]
        labels = [example["label"] for _, example in group]
        classes, matrix = predictor.compare(images, labels, num_classes)
        on_their_way.append(matrix)
        if len(on_their_way) > 2:
            counted.matrix += np.asarray(on_their_way.popleft())
        for slot, (index, example) in enumerate(group):
            if index < num_rows:
                height, width = example["label"].shape
                prediction = np.asarray(classes[slot])[:height, :width]
                first_rows[index] = (example["image"], example["label"], prediction)

    groups = collections.defaultdict(list)
    for index, example in enumerate(examples):
        shape = predictor.padded_shape(example["image"].shape[:2])
        groups[shape].append((index, example))
        if len(groups[shape]) == predictor.batch_size:
            score(groups.pop(shape))
        counted.ignored_pixels += int((example["label"] == IGNORE_LABEL).sum())
        counted.num_images += 1
        on_image()
    for group in groups.values():
        score(group)
    for matrix in on_their_way:
        counted.matrix += np.asarray(matrix)
    counted.rows = [first_rows[index] for index in sorted(first_rows)]
    return _over_processes(counted)


def _over_processes(counted: Evaluation) -> Evaluation:
    flat = np.append(counted.matrix, [counted.ignored_pixels, counted.num_images])
    *cells, ignored, images = sum_over_processes(flat).tolist()
    matrix = np.asarray(cells, np.int64).reshape(counted.matrix.shape)
    return Evaluation(matrix, ignored, images, counted.rows)

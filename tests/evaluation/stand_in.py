"""A predictor whose answers are known: each image holds its own prediction."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.sharding import one_device_layout

_MULTIPLE = 32


class StandIn:
    """Takes the red of a pixel for its class."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.protocol = PLAIN
        self.compilations = 1
        self.layout = one_device_layout()

    @contextlib.contextmanager
    def loaded(self, params, batch_stats) -> Iterator[None]:
        """There are no weights."""
        yield

    def group(self, shape: tuple[int, int]) -> tuple[int, ...]:
        return tuple(-(-length // _MULTIPLE) * _MULTIPLE for length in shape)

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [image[..., 0] for image in images]

    def start(self, images: Sequence[np.ndarray]) -> jax.Array:
        assert len(images) <= self.batch_size
        shape = self.group(images[0].shape[:2])
        classes = np.zeros((self.batch_size, *shape), np.uint8)
        for row, image in zip(classes, images, strict=False):
            assert self.group(image.shape[:2]) == shape
            row[: image.shape[0], : image.shape[1]] = image[..., 0]
        return jax.device_put(classes, self.layout.batch)


def random_examples(num_images: int, classes: Sequence[int], seed: int) -> list[dict]:
    """Examples of odd sizes: {"image", "label", "name"}, areas with many mistakes.

    classes: what truth and prediction hold; 255 besides is in some truths.
    """
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(num_images):
        shape = tuple(rng.integers(5, 50, 2))
        small = rng.choice(classes, (9, 9))
        truth = np.kron(small, np.ones((6, 6)))[: shape[0], : shape[1]]
        wrong = rng.random(shape) < rng.random()
        found = np.where(wrong, rng.choice(classes, shape), truth)
        truth[rng.random(shape) < 0.1 * (number % 3)] = IGNORE_LABEL
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        image[..., 0] = found
        label = truth.astype(np.uint8)
        examples.append({"image": image, "label": label, "name": f"image {number}"})
    return examples

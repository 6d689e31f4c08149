"""A predictor whose answers are known: each image holds its own prediction."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from refinenet_jax.inference.metrics import confusion_matrices
from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.labels import IGNORE_LABEL

_MULTIPLE = 32
_count = jax.jit(confusion_matrices, static_argnums=2)


class StandIn:
    """Takes the red of a pixel for its class; counts as `Predictor` does."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.protocol = PLAIN
        self.compilations = 1

    def load(self, params, batch_stats) -> None:
        """There are no weights."""

    def group(self, shape: tuple[int, int]) -> tuple[int, ...]:
        return tuple(-(-length // _MULTIPLE) * _MULTIPLE for length in shape)

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [image[..., 0] for image in images]

    def compare(self, images, labels, num_classes) -> tuple[jax.Array, jax.Array]:
        shape = (self.batch_size, *self.group(labels[0].shape))
        assert len(images) <= self.batch_size
        classes = np.zeros(shape, np.uint8)
        truth = np.full(shape, IGNORE_LABEL, np.uint8)
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            assert self.group(label.shape) == shape[1:]
            height, width = label.shape
            classes[row, :height, :width] = image[..., 0]
            truth[row, :height, :width] = label
        on_device = jnp.asarray(classes)
        return on_device, _count(on_device, jnp.asarray(truth), num_classes)


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

"""Runs a network on images of any size with a handful of compilations.

Images are padded to a multiple of a few pixels and the network is told their true
size, which gives what it gives on the images alone.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from refinenet_jax.inference.metrics import confusion_matrix
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.models.build import SegmentationNetwork, normalize, split_network
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.resize import resize
from refinenet_jax.sharding import replicated, split_batch

Shape = tuple[int, int]


class Predictor:
    """A compiled network in inference mode on the devices of one process.

    Attributes:
        compilations: how many programs were compiled so far.
        batch_size: images that run together; rounded up to suit the devices.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        size_multiple: int,
        mesh: Mesh,
    ):
        view = nnx.view(network, deterministic=True, use_running_average=True)
        self._graph, _, _ = split_network(view)
        self._mean, self._std = mean, std
        self._size_multiple = size_multiple
        self._mesh = mesh
        self.compilations = 0
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self._variables: tuple[nnx.State, nnx.State] | None = None
        whole, split = replicated(mesh), split_batch(mesh)
        self._predict = jax.jit(
            self._traced_predict,
            in_shardings=(whole, whole, split, split),
            out_shardings=split,
        )
        self._probabilities = jax.jit(
            self._traced_probabilities,
            in_shardings=(whole, whole, split, split),
            out_shardings=split,
        )
        self._confusion = jax.jit(
            confusion_matrix,
            static_argnums=2,
            in_shardings=(split, split),
            out_shardings=whole,
        )

    def load(self, params: nnx.State, batch_stats: nnx.State) -> None:
        """Takes the weights to use from now on; they may lie on a larger mesh."""
        sharding = replicated(self._mesh)
        self._variables = jax.tree.map(
            lambda x: (
                jax.device_put(x.addressable_data(0), sharding)
                if x.sharding != sharding
                else x
            ),
            (params, batch_stats),
        )

    def padded_shape(self, shape: Shape) -> Shape:
        """The height and width at which an image of `shape` runs."""
        multiple = self._size_multiple
        height, width = (-(-length // multiple) * multiple for length in shape)
        return height, width

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Class of every pixel.

        images: at most batch_size of uint8 [H,W,3] RGB with the same padded shape →
        uint8 [H,W] each.
        """
        classes = np.asarray(self._predict(*self._arguments(images)))
        return _cropped(classes, images)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probability of every class: as `predict`, → float32 [H,W,classes] each."""
        shares = np.asarray(self._probabilities(*self._arguments(images)))
        return _cropped(shares, images)

    def compare(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        num_classes: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Predicts and counts.

        images, labels: as `predict`, with uint8 [H,W] labels, 255 = ignore → class ids
        uint8 [B,H,W] with padding, and int32 [C,C] confusion matrix. Both are still
        on their way when this returns.
        """
        classes = self._predict(*self._arguments(images))
        padded = np.full(classes.shape, IGNORE_LABEL, np.uint8)
        for row, label in zip(padded, labels, strict=False):
            row[: label.shape[0], : label.shape[1]] = label
        label_array = jax.device_put(padded, split_batch(self._mesh))
        return classes, self._confusion(classes, label_array, num_classes)

    def _arguments(
        self, images: Sequence[np.ndarray]
    ) -> tuple[nnx.State, nnx.State, jax.Array, jax.Array]:
        if self._variables is None:
            raise ValueError("load the weights first")
        height, width = self.padded_shape(images[0].shape[:2])
        batch = np.zeros((self.batch_size, height, width, 3), np.uint8)
        sizes = np.ones((self.batch_size, 2), np.int32)
        for index, image in enumerate(images):
            sizes[index] = image.shape[:2]
            batch[index, : image.shape[0], : image.shape[1]] = image
        split = split_batch(self._mesh)
        on_devices = jax.device_put((batch, sizes), split)
        return *self._variables, *on_devices

    def _traced_logits(
        self,
        params: nnx.State,
        batch_stats: nnx.State,
        image: jax.Array,
        size: jax.Array,
    ) -> jax.Array:
        # jit comes by here once for each new shape.
        self.compilations += 1
        network = nnx.merge(self._graph, params, batch_stats)
        features = FeatureMap(normalize(image, self._mean, self._std), size)
        logits = network.score(features)
        _, height, width, _ = image.shape
        return resize(logits, (height, width), size, "bilinear").values

    def _traced_predict(self, *arguments: Any) -> jax.Array:
        return jnp.argmax(self._traced_logits(*arguments), axis=-1).astype(jnp.uint8)

    def _traced_probabilities(self, *arguments: Any) -> jax.Array:
        return jax.nn.softmax(self._traced_logits(*arguments), axis=-1)


def _cropped(values: np.ndarray, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Takes the padding off again."""
    return [
        np.ascontiguousarray(value[: image.shape[0], : image.shape[1]])
        for value, image in zip(values, images, strict=False)
    ]

"""Runs a network on images of any size with a handful of compilations.

Images are padded to one of a few sizes and the network is told their true size, which
gives what it gives on the images alone.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from refinenet_jax.inference.protocol import Protocol, Shape
from refinenet_jax.models import FeatureMap, RefineNet, in_inference
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import Layout

Group = tuple[Shape, Shape | None]


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The sizes that images are padded to.

    Attributes:
        sizes: height and width each; an image takes the smallest that holds it.
        multiple: an image that none of them holds is padded to a multiple of it.
    """

    sizes: tuple[Shape, ...]
    multiple: int

    def holding(self, shape: Shape) -> Shape:
        """The height and width at which an image of `shape` runs."""
        fitting = [s for s in self.sizes if s[0] >= shape[0] and s[1] >= shape[1]]
        if fitting:
            return min(fitting, key=lambda size: size[0] * size[1])
        height, width = (-(-n // self.multiple) * self.multiple for n in shape)
        return height, width


class Predictor:
    """A compiled network in inference mode on the devices of one process.

    Several threads may predict at once; each program is compiled by one of them.

    Attributes:
        protocol: what is done with an image to predict it.
        compilations: how many programs were compiled so far.
        batch_size: images that run together; rounded up to suit the devices.
        layout: where they run.
    """

    def __init__(
        self,
        network: RefineNet,
        *,
        batch_size: int,
        buckets: Buckets,
        protocol: Protocol,
        layout: Layout,
    ):
        self._structure, _, _ = split_network(in_inference(network))
        self._buckets = buckets
        self.protocol = protocol
        self.layout = layout
        self.compilations = 0
        devices = layout.num_devices
        self.batch_size = -(-batch_size // devices) * devices
        self._variables: tuple[nnx.State, nnx.State] | None = None
        self._compiled: set[tuple[Callable[..., jax.Array], Group]] = set()
        self._compiling = threading.Lock()
        whole, split = layout.state, layout.batch
        self._predict = jax.jit(
            self._traced_predict,
            static_argnums=5,
            in_shardings=(whole, whole, split, split, split),
            out_shardings=split,
        )
        self._probabilities = jax.jit(
            self._traced_probabilities,
            static_argnums=5,
            in_shardings=(whole, whole, split, split, split),
            out_shardings=split,
        )

    def load(self, params: nnx.State, batch_stats: nnx.State) -> None:
        """Takes the weights to use from now on; they may lie on more devices."""
        sharding = self.layout.state
        self._variables = jax.tree.map(
            lambda x: (
                jax.device_put(x.addressable_data(0), sharding)
                if x.sharding != sharding
                else x
            ),
            (params, batch_stats),
        )

    def group(self, shape: Shape) -> Group:
        """Images of one group run together: [H,W] of an image → its key."""
        base = self.protocol.base_size(shape)
        return (
            self._buckets.holding(shape),
            None if base == shape else self._buckets.holding(base),
        )

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Class of every pixel.

        images: at most batch_size of uint8 [H,W,3] RGB of one `group` → uint8 [H,W]
        each.
        """
        return _cropped(np.asarray(self.start(images)), images)

    def start(self, images: Sequence[np.ndarray]) -> jax.Array:
        """As `predict`, but returns at once: uint8 [batch_size,H,W] with padding.

        Rows beyond the images given mean nothing.
        """
        return self._run(self._predict, images)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probability of every class: as `predict`, → float32 [H,W,classes] each."""
        return _cropped(np.asarray(self._run(self._probabilities, images)), images)

    def _run(
        self, program: Callable[..., jax.Array], images: Sequence[np.ndarray]
    ) -> jax.Array:
        group = self.group(images[0].shape[:2])
        arguments = self._arguments(images, group)
        if (program, group) in self._compiled:
            return program(*arguments)
        # Threads that meet a new size together would each compile it.
        with self._compiling:
            found = program(*arguments)
            self._compiled.add((program, group))
        return found

    def _arguments(self, images: Sequence[np.ndarray], group: Group) -> tuple[Any, ...]:
        """What the compiled programs take."""
        if self._variables is None:
            raise ValueError("load the weights first")
        (height, width), base_shape = group
        batch = np.zeros((self.batch_size, height, width, 3), np.uint8)
        sizes, base_sizes = np.ones((2, self.batch_size, 2), np.int32)
        for index, image in enumerate(images):
            sizes[index] = image.shape[:2]
            base_sizes[index] = self.protocol.base_size(image.shape[:2])
            batch[index, : image.shape[0], : image.shape[1]] = image
        host_arrays = (batch, sizes, base_sizes)
        on_devices = jax.device_put(host_arrays, self.layout.batch)
        return *self._variables, *on_devices, base_shape

    def _traced_probabilities(
        self,
        params: nnx.State,
        batch_stats: nnx.State,
        image: jax.Array,
        size: jax.Array,
        base_size: jax.Array,
        base_shape: Shape | None,
    ) -> jax.Array:
        # jit comes by here once for each new shape.
        self.compilations += 1
        network = self._structure.merge(params, batch_stats)
        features = FeatureMap(network.normalize(image), size)
        base = None if base_shape is None else (base_shape, base_size)
        return self.protocol.probabilities(network.forward, features, base)

    def _traced_predict(self, *arguments: Any) -> jax.Array:
        shares = self._traced_probabilities(*arguments)
        return jnp.argmax(shares, axis=-1).astype(jnp.uint8)


def _cropped(values: np.ndarray, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Takes the padding off again."""
    return [
        np.ascontiguousarray(value[: image.shape[0], : image.shape[1]])
        for value, image in zip(values, images, strict=False)
    ]

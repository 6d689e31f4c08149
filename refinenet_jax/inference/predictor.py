"""Runs a network on images of any size with a handful of compilations.

Images are padded to one of a few sizes and the network is told their true size, which
gives what it gives on the images alone.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from refinenet_jax import compiling, memory
from refinenet_jax.inference.inputs import kind_of
from refinenet_jax.inference.protocol import Protocol, Shape
from refinenet_jax.models import FeatureMap, RefineNet, in_inference
from refinenet_jax.models.folding import fold
from refinenet_jax.models.leaves import Structure, split_network
from refinenet_jax.sharding import Layout, next_multiple

Group = tuple[Shape, Shape | None]

_SMALLER = (
    "set config.eval.window, such as 512, or lower config.eval.batch_size, "
    "config.eval.scales, config.eval.size_multiple or the sizes of config.eval.buckets"
)


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
        kind: of the images.
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
        view = in_inference(network, kernel_sharding=layout.kernels)
        self._structure, _, _ = split_network(view)
        self._folded: Structure[RefineNet] | None = None
        self._about = f"{network.architecture.variant}, {protocol}"
        self._buckets = buckets
        self.kind = kind_of(network.architecture)
        self.protocol = protocol
        self.layout = layout
        self.compilations = 0
        self.batch_size = next_multiple(batch_size, layout.batch_shards)
        self._variables: tuple[nnx.State, nnx.State] | None = None
        self._programs: dict[Hashable, jax.stages.Compiled] = {}
        self._compiling = threading.Lock()
        whole, pictures, examples = layout.state, layout.batch, layout.examples
        self._predict, self._probabilities = (
            jax.jit(
                functools.partial(self._traced, result),
                static_argnums=5,
                in_shardings=(whole, whole, pictures, examples, examples),
                out_shardings=pictures,
            )
            for result in (protocol.classes, protocol.probabilities)
        )

    def load(self, params: nnx.State, batch_stats: nnx.State) -> None:
        """Takes the weights to use from now on; they may lie on more devices."""
        sharding = self.layout.state
        variables = params, batch_stats
        if self.layout.platform == "cpu":
            # Accelerators' compilers fuse a norm into its convolution by themselves.
            here = jax.tree.map(lambda x: x.addressable_data(0), variables)
            network = fold(self._structure.merge(*here))
            self._folded, folded_params, folded_stats = split_network(network)
            variables = folded_params, folded_stats
        self._variables = jax.tree.map(
            lambda x: (
                jax.device_put(x.addressable_data(0), sharding)
                if x.sharding != sharding
                else x
            ),
            variables,
        )

    @contextlib.contextmanager
    def loaded(self, params: nnx.State, batch_stats: nnx.State) -> Iterator[None]:
        """As `load`; the weights are let go of at the end."""
        self.load(params, batch_stats)
        try:
            yield
        finally:
            self._variables = None

    def group(self, shape: Shape) -> Group:
        """Images of one group run together: [H,W] of an image → its key."""
        base = self.protocol.base_size(shape)
        height, width = self._buckets.holding(shape)
        return (
            # Devices that share a picture have as many rows each.
            (next_multiple(height, self.layout.row_shards), width),
            None if base == shape else self._buckets.holding(base),
        )

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Class of every pixel.

        images: at most batch_size of [H,W,C] of the network's kind and of one `group`
        → uint8 [H,W] each.
        """
        with telling_of_memory():
            return _cropped(np.asarray(self.start(images)), images)

    def start(self, images: Sequence[np.ndarray]) -> jax.Array:
        """As `predict`, but returns at once: uint8 [batch_size,H,W] with padding.

        Rows beyond the images given mean nothing.

        Raises:
            OutOfMemory: the devices have too little for images of this size.
        """
        return self._run(self._predict, images)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probability of every class: as `predict`, → float32 [H,W,classes] each."""
        with telling_of_memory():
            return _cropped(np.asarray(self.start_probabilities(images)), images)

    def start_probabilities(self, images: Sequence[np.ndarray]) -> jax.Array:
        """As `start`: float32 [batch_size,H,W,classes] with padding."""
        return self._run(self._probabilities, images)

    def lower(
        self, params: nnx.State, batch_stats: nnx.State, shape: Shape
    ) -> jax.stages.Lowered:
        """The program of `predict` for images of [H,W]; it is not run.

        params, batch_stats: abstract, with the shardings of the layout.
        """
        variables = params, batch_stats
        if self.layout.platform == "cpu":
            # What is folded depends on values, but no shape does.
            ones = jax.tree.map(
                lambda x: jnp.ones(x.shape, x.dtype, device=x.sharding), variables
            )
            with self.loaded(*ones):
                assert self._variables is not None
                variables = self._variables
        (height, width), base_shape = self.group(shape)
        batch, examples = self.layout.batch, self.layout.examples
        arrays = [
            jax.ShapeDtypeStruct((self.batch_size, *shape), dtype, sharding=sharding)
            for shape, dtype, sharding in (
                ((height, width, self.kind.channels), self.kind.dtype, batch),
                ((2,), jnp.int32, examples),
                ((2,), jnp.int32, examples),
            )
        ]
        return self._predict.lower(*variables, *arrays, base_shape)

    def _run(
        self, program: jax.stages.Wrapped, images: Sequence[np.ndarray]
    ) -> jax.Array:
        group = self.group(images[0].shape[:2])
        *arrays, base_shape = self._arguments(images, group)
        key = program, group
        if key in self._programs:
            return self._programs[key](*arrays)
        # Threads that meet a new size together would each compile it.
        with self._compiling:
            if key not in self._programs:
                height, width = group[0]
                what = f"predicting {self.batch_size} images of {height} x {width}"
                with compiling.told(what, f"with {self._about}"):
                    compiled = program.lower(*arrays, base_shape).compile()
                memory.refuse_large_program(compiled, what, _SMALLER)
                self._programs[key] = compiled
        return self._programs[key](*arrays)

    def _arguments(self, images: Sequence[np.ndarray], group: Group) -> tuple[Any, ...]:
        """What the compiled programs take."""
        if self._variables is None:
            raise ValueError("load the weights first")
        (height, width), base_shape = group
        shape = (self.batch_size, height, width, self.kind.channels)
        batch = np.zeros(shape, self.kind.dtype)
        sizes, base_sizes = np.ones((2, self.batch_size, 2), np.int32)
        for index, image in enumerate(images):
            sizes[index] = image.shape[:2]
            base_sizes[index] = self.protocol.base_size(image.shape[:2])
            batch[index, : image.shape[0], : image.shape[1]] = image
        layout = self.layout
        on_devices = jax.device_put(
            (batch, sizes, base_sizes),
            (layout.batch, layout.examples, layout.examples),
        )
        return *self._variables, *on_devices, base_shape

    def _traced(
        self,
        result: Callable[..., jax.Array],
        params: nnx.State,
        batch_stats: nnx.State,
        image: jax.Array,
        size: jax.Array,
        base_size: jax.Array,
        base_shape: Shape | None,
    ) -> jax.Array:
        """result: a method of the protocol."""
        # jit comes by here once for each new shape.
        self.compilations += 1
        network = (self._folded or self._structure).merge(params, batch_stats)
        features = FeatureMap(network.normalize(image), size)
        base = None if base_shape is None else (base_shape, base_size)
        return result(network.forward, features, base)


def telling_of_memory() -> contextlib.AbstractContextManager[None]:
    """Says what to set where the devices run out of memory while predicting."""
    return memory.telling("predicting", _SMALLER)


def _cropped(values: np.ndarray, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Takes the padding off again."""
    return [
        np.ascontiguousarray(value[: image.shape[0], : image.shape[1]])
        for value, image in zip(values, images, strict=False)
    ]

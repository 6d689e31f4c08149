"""A segmenter that compiles in a blink."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from refinenet_jax import Segmenter
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.models import Architecture, abstract_network, add_backbone
from tests.restored import restored_tables
from tests.tiny import TINY


@contextlib.contextmanager
def tiny_segmenter(num_classes: int, **changes: Any) -> Iterator[Segmenter]:
    """With random weights, for which nothing is compiled; changes: of its architecture."""
    with restored_tables():
        add_backbone("tiny", TINY)
        simple: dict[str, Any] = {"cascade": "single", "pooling_stages": 1}
        description = Architecture("light_tiny", num_classes, **simple | changes)
        graph, state = nnx.split(abstract_network(description))
        rng = np.random.default_rng(0)

        def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
            deviation = (2 / math.prod(leaf.shape[:-1])) ** 0.5
            return jnp.asarray(rng.normal(0, deviation, leaf.shape), leaf.dtype)

        network = nnx.merge(graph, jax.tree.map(fill, state))
        names = tuple(f"class {number}" for number in range(num_classes))
        palette = tuple((9 * i, i, 255 - i) for i in range(num_classes))
        yield Segmenter(network, Metadata(description, names, palette))

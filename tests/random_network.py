"""A small network with random weights, compiled at once instead of layer by layer."""

import jax
import jax.numpy as jnp
from flax import nnx

from refinenet_jax.models.build import RefineNet, build
from tests.architectures import architecture


def random_light_resnet18(num_classes: int, seed: int) -> RefineNet:
    """In training mode, like any new network."""

    def create() -> RefineNet:
        return build(
            architecture("light_resnet18", num_classes),
            dtype=jnp.float32,
            rngs=nnx.Rngs(params=jax.random.key(seed, impl="rbg")),
        )

    graph, _ = nnx.split(nnx.eval_shape(create))
    return nnx.merge(graph, jax.jit(lambda: nnx.split(create())[1])())

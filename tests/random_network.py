"""A small network with random weights, compiled at once instead of layer by layer."""

from typing import Any

import jax
from flax import nnx

from refinenet_jax.models import RefineNet
from tests.architectures import architecture


def random_light_resnet18(num_classes: int, seed: int, **changes: Any) -> RefineNet:
    """In training mode, like any new network; `changes` are of its architecture."""

    def create() -> RefineNet:
        return RefineNet(
            architecture("light_resnet18", num_classes, **changes),
            rngs=nnx.Rngs(params=jax.random.key(seed, impl="rbg")),
        )

    graph, _ = nnx.split(nnx.eval_shape(create))
    return nnx.merge(graph, jax.jit(lambda: nnx.split(create())[1])())

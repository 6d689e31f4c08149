"""Networks by their description, weights by their PyTorch names; needs no torch."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from refinenet_jax import models
from refinenet_jax.models import Architecture, RefineNet
from refinenet_jax.models.leaves import named_leaves, replace_leaves, weights_of
from refinenet_jax.weights.mapping import import_weights


def architecture(variant: str, num_classes: int = 21, **changes: Any) -> Architecture:
    """A network for VOC's classes, the default but for the given fields."""
    return Architecture(variant, num_classes, **changes)


def abstract_network(description: Architecture, dtype: str = "float32") -> RefineNet:
    """The network in training mode, with shapes in place of weights."""
    return models.abstract_network(description, dtype)


def set_weights(
    network: RefineNet, tensors: Mapping[str, np.ndarray], variant: str
) -> None:
    """Fills a network, or its backbones alone, with weights as PyTorch names them.

    Args:
        network: may be abstract; it is changed in place.
        tensors: all of a checkpoint.
        variant: of the network.

    Raises:
        UserError: lists every tensor without a place and every leaf without a tensor.
    """
    state = weights_of(network)
    imported = import_weights(
        tensors,
        {name: leaf.shape for name, leaf in named_leaves(state).items()},
        variant,
        with_classifier=True,
        origin="the weights of the test",
    )
    # Copies: on CPU, JAX would otherwise share memory with the tensors.
    arrays = {
        name: jnp.array(array, copy=True) for name, array in imported.arrays.items()
    }
    nnx.update(network, replace_leaves(state, arrays))


def compiled(module: nnx.Module, *inputs: Any) -> Any:
    """module(*inputs); modules of one structure share what is compiled."""
    graph, state = nnx.split(module)
    return _call(graph, state, *inputs)


@functools.partial(jax.jit, static_argnums=0)
def _call(graph: nnx.GraphDef, state: nnx.State, *inputs: Any) -> Any:
    return nnx.merge(graph, state)(*inputs)

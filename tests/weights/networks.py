"""Shapes and random weights of networks, without torch and without building them."""

import functools

import numpy as np
from flax import nnx

from refinenet_jax.models.leaves import named_leaves
from refinenet_jax.weights.mapping import export_weights
from tests.architectures import abstract_network, architecture


@functools.cache
def _shapes(variant, changes):
    network = abstract_network(architecture(variant, **dict(changes)))
    leaves = named_leaves(nnx.state(network))
    return {name: leaf.shape for name, leaf in leaves.items()}


def shapes_of(variant, **changes):
    """Every leaf of a network and its shape."""
    return dict(_shapes(variant, tuple(changes.items())))


def random_arrays(shapes, seed=0):
    """Random values for every leaf."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def checkpoint_of(variant, **changes):
    """What a PyTorch checkpoint of the network holds, with random values."""
    return export_weights(random_arrays(shapes_of(variant, **changes)), variant)


def in_torch(value):
    """Arrays in dicts as tensors; all else stays."""
    import torch

    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: in_torch(inner) for key, inner in value.items()}
    return value

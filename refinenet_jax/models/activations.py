"""What is computed of each value alone, in every pixel of a FeatureMap."""

from collections.abc import Callable

import jax

from refinenet_jax.models.layers import FeatureMap

Activation = Callable[[FeatureMap], FeatureMap]


def relu(x: FeatureMap) -> FeatureMap:
    """max(x, 0)."""
    return x.with_values(jax.nn.relu(x.values))


def relu6(x: FeatureMap) -> FeatureMap:
    """min(max(x, 0), 6)."""
    return x.with_values(jax.nn.relu6(x.values))


def silu(x: FeatureMap) -> FeatureMap:
    """X sigmoid(x), also called swish."""
    return x.with_values(jax.nn.silu(x.values))


def hard_swish(x: FeatureMap) -> FeatureMap:
    """X relu6(x + 3) / 6."""
    return x.with_values(jax.nn.hard_swish(x.values))


def gelu(x: FeatureMap) -> FeatureMap:
    """X times the normal distribution function of x."""
    return x.with_values(jax.nn.gelu(x.values, approximate=False))


def sigmoid(x: FeatureMap) -> FeatureMap:
    """1 / (1 + exp(-x))."""
    return x.with_values(jax.nn.sigmoid(x.values))


def hard_sigmoid(x: FeatureMap) -> FeatureMap:
    """relu6(x + 3) / 6."""
    return x.with_values(jax.nn.hard_sigmoid(x.values))

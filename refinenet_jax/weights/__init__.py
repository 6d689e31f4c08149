"""Weights of PyTorch checkpoints, in both directions."""

from refinenet_jax.weights.load import Taken, load_weights
from refinenet_jax.weights.mapping import export_weights

__all__ = ["Taken", "export_weights", "load_weights"]

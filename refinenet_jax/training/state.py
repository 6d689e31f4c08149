"""Everything that a training step changes."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from refinenet_jax.models import RefineNet
from refinenet_jax.models.leaves import split_network


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The changing part of a run.

    Example:
        state = create_state(network, optax.sgd(0.1), seed=0)
        assert TrainState.from_items(state.items()).step == state.step

    Attributes:
        step: int32 [], steps done.
        params: float32 weights, by path.
        batch_stats: float32 BatchNorm statistics, by path.
        opt_state: of the optimiser.
        key: uint32 [2], key data of dropout; each step folds its number in.
    """

    step: jax.Array
    params: nnx.State
    batch_stats: nnx.State
    opt_state: optax.OptState
    key: jax.Array

    def items(self) -> dict[str, Any]:
        """The state as a checkpoint keeps it: the network apart from all else."""
        return {
            "network": {"params": self.params, "batch_stats": self.batch_stats},
            "training": {
                "step": self.step,
                "opt_state": self.opt_state,
                "key": self.key,
            },
        }

    @classmethod
    def from_items(cls, items: Mapping[str, Any]) -> "TrainState":
        """The inverse of `items`."""
        return cls(**items["network"], **items["training"])


def create_state(
    network: RefineNet, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state of step 0; may be traced, so that arrays are made where they live.

    Its arrays are the network's own.

    Example:
        state = create_state(network, optax.sgd(0.1), seed=0)
        assert state.step == 0

    Args:
        network: what is trained.
        optimizer: of its parameters.
        seed: of dropout.
    """
    _, params, batch_stats = split_network(network)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        # Not the key of the weights.
        key=jax.random.key_data(jax.random.fold_in(jax.random.key(seed), 1)),
    )


def sha256(state: TrainState) -> str:
    """Fingerprint of parameters, BatchNorm statistics and optimiser state.

    Two runs that agree bit for bit have the same; the order is that of the sorted
    paths.
    """
    digest = hashlib.sha256()
    parts = (state.params, state.batch_stats, state.opt_state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        array = np.ascontiguousarray(leaf)
        digest.update(
            f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode()
        )
        digest.update(array.tobytes())
    return digest.hexdigest()

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
from jax.experimental import multihost_utils

from refinenet_jax.models import RefineNet
from refinenet_jax.models.leaves import split_network


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """A network averaged over the steps of its training.

    Attributes:
        params: float32 weights, by path.
        batch_stats: float32 BatchNorm statistics, by path.
    """

    params: nnx.State
    batch_stats: nnx.State


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
        average: of the network, where the run keeps one: what is evaluated and, in a
            checkpoint, what is found as its network.
    """

    step: jax.Array
    params: nnx.State
    batch_stats: nnx.State
    opt_state: optax.OptState
    key: jax.Array
    average: Average | None = None

    @property
    def network(self) -> tuple[nnx.State, nnx.State]:
        """Parameters and statistics to evaluate: the average where there is one."""
        best = self.average or self
        return best.params, best.batch_stats

    def items(self) -> dict[str, Any]:
        """The state as a checkpoint keeps it: the network apart from all else."""
        params, batch_stats = self.network
        own = {"params": self.params, "batch_stats": self.batch_stats}
        return {
            "network": {"params": params, "batch_stats": batch_stats},
            "training": {
                "step": self.step,
                "opt_state": self.opt_state,
                "key": self.key,
                **({} if self.average is None else own),
            },
        }

    @classmethod
    def from_items(cls, items: Mapping[str, Any]) -> "TrainState":
        """The inverse of `items`."""
        network, training = items["network"], items["training"]
        if "params" in training:
            return cls(**training, average=Average(**network))
        return cls(**network, **training)

    def starting_from(self, params: nnx.State, batch_stats: nnx.State) -> "TrainState":
        """The state with another network, which the average begins with, too."""
        average = self.average and _average_from(params, batch_stats)
        return dataclasses.replace(
            self, params=params, batch_stats=batch_stats, average=average
        )


def create_state(
    network: RefineNet,
    optimizer: optax.GradientTransformation,
    seed: int,
    *,
    averages: bool = False,
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
        averages: an average of the network is kept.
    """
    _, params, batch_stats = split_network(network)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        # Not the key of the weights.
        key=jax.random.key_data(jax.random.fold_in(jax.random.key(seed), 1)),
        average=_average_from(params, batch_stats) if averages else None,
    )


def _average_from(params: nnx.State, batch_stats: nnx.State) -> Average:
    """Copies: a step takes the memory of every array of its state."""
    return Average(*jax.tree.map(jnp.copy, (params, batch_stats)))


def sha256(state: TrainState) -> str:
    """Fingerprint of parameters, BatchNorm statistics, optimiser state and average.

    Two runs that agree bit for bit have the same, however their arrays are divided; the
    order is that of the sorted paths. All processes must call this.
    """
    digest = hashlib.sha256()
    parts = (state.params, state.batch_stats, state.opt_state, state.average)
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        array = np.ascontiguousarray(leaf)
        digest.update(
            f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode()
        )
        digest.update(array.tobytes())
    return digest.hexdigest()

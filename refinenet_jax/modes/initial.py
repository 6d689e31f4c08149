"""Weights to start from: another run's, or a PyTorch checkpoint."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Sharding
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.models.leaves import CLASSIFIER, named_leaves, replace_leaves
from refinenet_jax.segmenter import shapes_of_network
from refinenet_jax.training.checkpoint import open_checkpoints
from refinenet_jax.training.state import TrainState
from refinenet_jax.weights import torch
from refinenet_jax.weights.load import read_weights, shapes_of


def initial_state(
    config: ConfigDict, state: TrainState, metadata: Metadata, sharding: Sharding
) -> TrainState:
    """Parameters and BatchNorm statistics of config.init_from; all else starts anew.

    Args:
        config: the whole configuration.
        state: with random weights.
        metadata: of the network that the run asks for.
        sharding: how to lay the weights out.

    Raises:
        UserError: the weights cannot be read or are of another network.
    """
    if torch.is_torch_file(config.init_from):
        params, batch_stats = _of_torch_file(config, state, metadata, sharding)
    else:
        params, batch_stats = _of_run(config, state, metadata, sharding)
    return dataclasses.replace(state, params=params, batch_stats=batch_stats)


def _of_torch_file(
    config: ConfigDict, state: TrainState, metadata: Metadata, sharding: Sharding
) -> tuple[nnx.State, nnx.State]:
    taken = read_weights(
        config.init_from,
        metadata.architecture,
        shapes_of(nnx.merge_state(state.params, state.batch_stats)),
        with_classifier=config.init_classifier,
    )
    log.say(str(taken))
    arrays = {
        leaf: jax.device_put(jnp.asarray(array), sharding)
        for leaf, array in taken.arrays.items()
    }
    return replace_leaves(state.params, arrays), replace_leaves(
        state.batch_stats, arrays
    )


def _of_run(
    config: ConfigDict, state: TrainState, metadata: Metadata, sharding: Sharding
) -> tuple[nnx.State, nnx.State]:
    workdir = Path(config.init_from)

    def shapes_for(found: Metadata) -> tuple[nnx.State, nnx.State]:
        check_same_network(
            workdir,
            found.architecture,
            metadata.architecture,
            with_classifier=config.init_classifier,
        )
        return shapes_of_network(found)

    with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
        found, params, batch_stats = checkpoints.load_network(
            "best", shapes_for, sharding
        )
    log.say(f"starting from the network of {workdir}, step {found.step}")
    if config.init_classifier:
        return params, batch_stats
    log.say("its classifier is not taken")
    taken = {
        path: leaf[...]
        for path, leaf in named_leaves(params).items()
        if path not in CLASSIFIER
    }
    return replace_leaves(state.params, taken), batch_stats

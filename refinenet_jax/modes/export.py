"""Mode export: a checkpoint of ours becomes a file for other programs."""

import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.models.build import named_leaves
from refinenet_jax.modes.initial import HEADER
from refinenet_jax.segmenter import Segmenter
from refinenet_jax.weights import torch
from refinenet_jax.weights.mapping import export_weights


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes export/network.safetensors, with the names of the PyTorch ports.

    Of several processes the first works.

    Raises:
        UserError: no checkpoint, or one that cannot be read.
    """
    if jax.process_index() != 0:
        return
    segmenter = Segmenter.from_checkpoint(workdir, config.eval.checkpoint)
    leaves = named_leaves(nnx.state(segmenter.model))
    arrays = {path: np.asarray(leaf[...]) for path, leaf in leaves.items()}
    architecture = segmenter.metadata["architecture"]
    tensors = export_weights(arrays, architecture["variant"])
    path = workdir / "export" / "network.safetensors"
    torch.write_safetensors(path, tensors, {HEADER: json.dumps(architecture)})
    log.say(
        f"step {segmenter.metadata['step']} of {workdir}: {len(tensors)} tensors in {path}"
    )

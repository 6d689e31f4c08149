"""Mode eval: scores a checkpoint on a whole split."""

import contextlib
from pathlib import Path

import jax.numpy as jnp
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.assembly.data import find_dataset, open_data
from refinenet_jax.assembly.evaluation import build_evaluator
from refinenet_jax.assembly.network import describe
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import open_checkpoints
from refinenet_jax.errors import UserError
from refinenet_jax.evaluation.report import class_table
from refinenet_jax.models import abstract_network
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.sharding import local_layout


def run(config: ConfigDict, workdir: Path) -> None:
    """Evaluates a checkpoint of a workdir; writes eval.json and eval/report.html.

    Raises:
        UserError: no checkpoint, no data, or a network other than the config's.
    """
    wanted = describe(config, find_dataset(config))

    def check(found: Metadata) -> None:
        check_same_network(workdir, found.architecture, wanted.architecture)
        if found.class_names != wanted.class_names:
            raise UserError(
                f"{workdir} was trained on the classes of {found.dataset}, "
                f"config.data.name={wanted.dataset!r} has others: evaluate it with its "
                "own config"
            )

    with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
        found, params, batch_stats = checkpoints.load_network(
            config.eval.checkpoint, local_layout().state, check
        )
    data = open_data(config, config.data.eval_split)
    network = abstract_network(found.architecture, jnp.dtype(config.model.dtype))
    number = len(data.sources[config.data.eval_split])
    log.say(f"step {found.step} of {workdir} on {number} images of {wanted.dataset}")
    evaluator = build_evaluator(config, network, data)
    record = evaluator.audit(found.step, params, batch_stats, workdir)
    log.say(class_table(record))
    log.say(f"{workdir / 'eval/report.html'} shows more")

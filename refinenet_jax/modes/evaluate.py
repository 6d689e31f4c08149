"""Mode eval: scores a checkpoint on a whole split."""

import contextlib

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.assembly.data import find_dataset, open_data
from refinenet_jax.assembly.evaluation import build_evaluator, layout_of
from refinenet_jax.assembly.network import (
    Pictures,
    architecture_of,
    refuse_other_channels,
)
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import open_checkpoints
from refinenet_jax.errors import UserError
from refinenet_jax.evaluation.report import class_table
from refinenet_jax.models import abstract_network
from refinenet_jax.models.architecture import check_same_network


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Evaluates a checkpoint of a workdir; writes eval.json and eval/report.html.

    Raises:
        UserError: no checkpoint, no data, or a network other than the config's.
    """
    layout = layout_of(config, jax.local_devices())
    dataset = find_dataset(config)

    def check(found: Metadata) -> None:
        refuse_other_channels(config, workdir, found.architecture)
        pictures = Pictures.seen_by(found.architecture)
        wanted = architecture_of(config, dataset.num_classes, pictures)
        check_same_network(workdir, found.architecture, wanted)
        if found.class_names != dataset.class_names:
            raise UserError(
                f"{workdir} was trained on the classes of {found.dataset}, "
                f"config.data.name={dataset.name!r} has others: evaluate it with its "
                "own config"
            )

    with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
        found, params, batch_stats = checkpoints.load_network(
            config.eval.checkpoint, layout.state, check
        )
    data = open_data(
        config, config.data.eval_split, channels=found.architecture.channels
    )
    network = abstract_network(found.architecture, jnp.dtype(config.model.dtype))
    number = len(data.sources[config.data.eval_split])
    log.say(f"step {found.step} of {workdir} on {number} images of {dataset.name}")
    evaluator = build_evaluator(config, network, data)
    record = evaluator.audit(found.step, params, batch_stats, workdir)
    log.say(class_table(record))
    log.say(f"{workdir / 'eval/report.html'} shows more")

"""How a config has images predicted and scored."""

import dataclasses
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from refinenet_jax.assembly.data import JobData, shown_of
from refinenet_jax.errors import UserError
from refinenet_jax.evaluation.evaluator import Evaluator
from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.protocol import Protocol
from refinenet_jax.models import RefineNet
from refinenet_jax.sharding import Layout, check_row_shards


def protocol_of(config: ConfigDict) -> Protocol:
    """What is done with an image to predict it."""
    names = [field.name for field in dataclasses.fields(Protocol)]
    return Protocol(**{name: config.eval[name] for name in names})


def buckets_of(config: ConfigDict) -> Buckets:
    """The sizes that images are padded to."""
    return Buckets(tuple(config.eval.buckets), config.eval.size_multiple)


def layout_of(config: ConfigDict, devices: Sequence[jax.Device]) -> Layout:
    """How the config lays an evaluation out over the devices of a process.

    Raises:
        UserError: they cannot share a picture.
    """
    check_row_shards("eval.row_shards", config.eval.row_shards, devices)
    return Layout.over(devices, row_shards=config.eval.row_shards)


def build_predictor(
    config: ConfigDict, network: RefineNet, layout: Layout
) -> Predictor:
    """What predicts images over a layout; network: may be abstract."""
    return Predictor(
        network,
        batch_size=config.eval.batch_size,
        buckets=buckets_of(config),
        protocol=protocol_of(config),
        layout=layout,
    )


def build_evaluator(config: ConfigDict, network: RefineNet, data: JobData) -> Evaluator:
    """What scores the network on config.data.eval_split, as often as it is asked.

    network: only its structure is used; it may be abstract.
    data: with that split opened.

    Raises:
        UserError: its pictures are of another kind than the network sees.
    """
    predictor = build_predictor(config, network, layout_of(config, jax.local_devices()))
    split = config.data.eval_split
    kind = data.sources[split].kind
    if kind != predictor.kind:
        raise UserError(
            f"the pictures of {data.dataset.name} have {kind}, but the network sees "
            f"{predictor.kind}: take other data or another network"
        )
    return Evaluator(
        predictor,
        data.dataset,
        split,
        data.sources[split],
        num_threads=config.data.num_threads,
        bootstrap_samples=config.eval.bootstrap_samples,
        boundary_width=config.eval.boundary_width,
        seed=config.seed,
        shown=shown_of(config),
    )

"""The programs of a config, to be compiled for a target: the step and the evaluation."""

import copy
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from refinenet_jax.assembly import evaluation, training
from refinenet_jax.assembly.data import find_dataset
from refinenet_jax.assembly.network import Pictures, architecture_of
from refinenet_jax.checkpoints.store import with_sharding
from refinenet_jax.inference.predictor import Predictor
from refinenet_jax.inference.protocol import Shape
from refinenet_jax.models import RefineNet, abstract_network
from refinenet_jax.models.leaves import split_network
from refinenet_jax.planning.program import Program, Waiting, plan
from refinenet_jax.planning.search import largest
from refinenet_jax.planning.targets import Target
from refinenet_jax.training.state import TrainState

_KINDS = {
    "params": "parameters",
    "batch_stats": "parameters",
    "opt_state": "optimizer",
    "average": "average",
}
_NEARLY = 1.25
# From the quickest to the one that keeps least.
_REMATS = ("none", "blocks", "all")


def network_of(config: ConfigDict) -> RefineNet:
    """The config's network with shapes in place of weights.

    Raises:
        UserError: config.model.num_classes is 0 and the data set is not there to count.
    """
    classes = config.model.num_classes or find_dataset(config).num_classes
    return abstract_network(
        architecture_of(config, classes, Pictures.asked_for(config)),
        jnp.dtype(config.model.dtype),
    )


def step_program(config: ConfigDict, network: RefineNet, target: Target) -> Program:
    """The step that train runs, over all devices of the target.

    Raises:
        UserError: they cannot share the batch.
    """
    layout = training.layout_of(config, target.devices)
    weights = None
    if config.loss.balance != "none" or config.loss.class_weights:
        # A program is the same with any.
        weights = (1.0,) * network.architecture.num_classes
    step = training.build_step(config, network, layout, weights)
    batch, crop = config.train.batch_size, config.data.crop_size
    return Program(
        name=f"the training step of {batch} crops of {crop} x {crop}",
        lower=lambda: step.function.lower(step.abstract_state, step.abstract_batch),
        images=batch,
        parts=_parts_of_step(step.abstract_state, step.abstract_batch),
        parameter_shapes=[
            leaf.shape for leaf in jax.tree.leaves(step.abstract_state.params)
        ],
        num_devices=layout.num_devices,
        dtype=config.model.dtype,
    )


def evaluation_programs(
    config: ConfigDict, network: RefineNet, target: Target
) -> list[Program]:
    """What mode eval runs on the devices of one process, for each bucket.

    Where config.eval.buckets is empty: for images of the size of a crop.
    """
    layout = evaluation.layout_of(config, target.devices_of_one_process)
    predictor = evaluation.build_predictor(config, network, layout)
    _, *weights = split_network(network)
    params, batch_stats = (with_sharding(part, layout.state) for part in weights)
    crop = config.data.crop_size
    return [
        _evaluation(config, predictor, params, batch_stats, shape)
        for shape in evaluation.buckets_of(config).sizes or [(crop, crop)]
    ]


def search(
    config: ConfigDict, network: RefineNet, target: Target, waiting: Waiting
) -> list[dict[str, Any]]:
    """The largest batch of a device, for each way to keep less.

    Where config.train.batch_size does not fit as one, each row has the fewest parts,
    train.accumulate, in which it does.
    """
    devices = training.layout_of(config, target.devices).batch_shards
    asked = config.train.batch_size // devices

    def plan_of(remat: str, batch: int, parts: int = 1) -> dict[str, Any]:
        changed = copy.deepcopy(config)
        changed.model.remat = remat
        changed.train.batch_size = batch * devices
        changed.train.accumulate = parts
        return plan(step_program(changed, network, target), target, waiting)

    rows = []
    for remat in _REMATS:
        first = max(1, asked // config.train.accumulate)
        batch, found = largest(functools.partial(plan_of, remat), first)
        row = _row(batch, found)
        # What was found may be a little less than the largest.
        parts = [
            n
            for n in range(1, asked + 1)
            if asked % n == 0 and asked // n <= _NEARLY * batch
        ]
        if parts and asked > batch:
            in_parts = next(
                (n for n in parts if plan_of(remat, asked, n)["fits"]), None
            )
            row["accumulate"] = in_parts
        rows.append({"remat": remat, **row})
    return rows


def _row(batch: int, found: dict[str, Any] | None) -> dict[str, Any]:
    limits = (found or {}).get("bound")
    return {
        "batch_per_device": batch,
        "accumulate": 1 if found else None,
        "bytes": found["bytes_per_device"]["total"] if found else None,
        "images_per_second": limits["images_per_second"] if limits else None,
    }


def _evaluation(
    config: ConfigDict,
    predictor: Predictor,
    params: nnx.State,
    batch_stats: nnx.State,
    shape: Shape,
) -> Program:
    height, width = predictor.group(shape)[0]
    images, devices = predictor.batch_size, predictor.layout.num_devices
    bytes_per_pixel = predictor.kind.bytes_per_pixel
    return Program(
        name=f"the evaluation of {images} images of {height} x {width}",
        lower=lambda: predictor.lower(params, batch_stats, shape),
        images=images,
        parts={
            "parameters": _bytes((params, batch_stats)),
            "batch": images * height * width * bytes_per_pixel // devices,
        },
        parameter_shapes=[],
        num_devices=devices,
        dtype=config.model.dtype,
    )


def _parts_of_step(
    state: TrainState, batch: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, int]:
    """Bytes on each device of what a step takes, by kind."""
    parts: dict[str, int] = {}
    for field in dataclasses.fields(state):
        kind = _KINDS.get(field.name, "other_state")
        parts[kind] = parts.get(kind, 0) + _bytes(getattr(state, field.name))
    return {**parts, "batch": _bytes(batch)}


def _bytes(tree: Any) -> int:
    """On each device, of arrays that are divided as their shardings say."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )

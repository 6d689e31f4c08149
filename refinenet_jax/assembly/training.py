"""The training step that a config asks for: what train runs."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from refinenet_jax import memory
from refinenet_jax.assembly.losses import build_loss
from refinenet_jax.checkpoints.store import with_shardings
from refinenet_jax.errors import UserError
from refinenet_jax.models import RefineNet
from refinenet_jax.sharding import (
    Layout,
    check_batch_size,
    check_row_shards,
    next_multiple,
)
from refinenet_jax.training import losses
from refinenet_jax.training import optimizer as optimizers
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.training.steps import StepOptions, build_train_step

# That a step keeps for a pixel of its crops, with room below: light_resnet18 takes
# 3600 in float32, compiled for a CPU.
_LEAST_BYTES = 300


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step and what it takes.

    Attributes:
        function: jitted: (state, batch) → (state, metrics); see `build_train_step`.
        optimizer: that it applies.
        abstract_state: shapes, dtypes and shardings of the state.
        abstract_batch: of a batch.
    """

    function: jax.stages.Wrapped
    optimizer: optax.GradientTransformation
    abstract_state: TrainState
    abstract_batch: dict[str, jax.ShapeDtypeStruct]


def layout_of(config: ConfigDict, devices: Sequence[jax.Device]) -> Layout:
    """How the config lays a training out over devices.

    Raises:
        UserError: the devices cannot share the batch, or its pictures.
    """
    row_shards, crop = config.train.row_shards, config.data.crop_size
    check_row_shards("train.row_shards", row_shards, devices)
    if crop % row_shards:
        raise UserError(
            f"config.data.crop_size={crop} must be a multiple of the {row_shards} of "
            f"config.train.row_shards, such as {next_multiple(crop, row_shards)}"
        )
    layout = Layout.over(
        devices, row_shards=row_shards, divides_state=config.train.shard_state
    )
    size, parts = config.train.batch_size, config.train.accumulate
    check_batch_size("train.batch_size", size, layout, parts=parts)
    return layout


def build_step(
    config: ConfigDict,
    network: RefineNet,
    layout: Layout,
    class_weights: Sequence[float] | None = None,
) -> Step:
    """The step for batches of config.train.batch_size crops over the layout.

    Args:
        config: the whole configuration.
        network: only its structure is used; it may be abstract.
        layout: of the devices.
        class_weights: what `assembly.losses.class_weights` gave.
    """
    settings, num_steps = config.optimizer, config.train.num_steps
    schedule = optimizers.schedule(
        settings.schedule,
        settings.learning_rate,
        num_steps,
        warmup_steps=settings.warmup_steps,
        step_at=settings.step_at,
        step_factor=settings.step_factor,
        poly_power=settings.poly_power,
    )
    optimizer = optimizers.build_optimizer(
        settings.name,
        schedule,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        encoder_multiplier=settings.encoder_multiplier,
        freezes_norms=config.model.batch_norm == "frozen",
    )
    function = build_train_step(
        network,
        optimizer,
        schedule,
        build_loss(config, class_weights),
        layout,
        _options_of(config, class_weights),
    )
    averages = config.train.ema > 0
    state = jax.eval_shape(
        lambda n: create_state(n, optimizer, config.seed, averages=averages), network
    )
    return Step(
        function,
        optimizer,
        with_shardings(state, layout.state_shardings(state)),
        _abstract_batch(config, network, layout),
    )


def _options_of(
    config: ConfigDict, class_weights: Sequence[float] | None
) -> StepOptions:
    return StepOptions(
        frozen_statistics=config.model.batch_norm != "trained",
        accumulate=config.train.accumulate,
        weight=functools.partial(
            losses.valid_pixels,
            resolution=config.loss.resolution,
            class_weights=class_weights,
        ),
        ema_decay=config.train.ema,
        remat=config.model.remat,
    )


def refuse_large_step(config: ConfigDict, layout: Layout) -> None:
    """Raises OutOfMemory for what need not even be compiled, which takes a while.

    layout: of devices that are attached.
    """
    parts = layout.num_devices * config.train.accumulate
    images = config.train.batch_size / parts
    needed = round(images * config.data.crop_size**2) * _LEAST_BYTES
    if needed > memory.device_bytes():
        raise memory.OutOfMemory(
            f"config.train.batch_size={config.train.batch_size} of "
            f"config.data.crop_size={config.data.crop_size} needs at least "
            f"{memory.gibibytes(needed)} on each device, which has "
            f"{memory.gibibytes(memory.device_bytes())}: lower one of them, or "
            "raise config.train.accumulate"
        )


def _abstract_batch(
    config: ConfigDict, network: RefineNet, layout: Layout
) -> dict[str, jax.ShapeDtypeStruct]:
    size, crop = config.train.batch_size, config.data.crop_size
    seen = network.architecture
    arrays = {
        "image": ((size, crop, crop, seen.channels), jnp.dtype(seen.picture_dtype)),
        "label": ((size, crop, crop), jnp.dtype(jnp.uint8)),
    }
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=layout.batch)
        for name, (shape, dtype) in arrays.items()
    }

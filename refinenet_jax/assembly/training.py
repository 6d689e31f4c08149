"""The training step that a config asks for: what train runs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from refinenet_jax.checkpoints.store import with_sharding
from refinenet_jax.models import RefineNet
from refinenet_jax.sharding import Layout
from refinenet_jax.training import losses
from refinenet_jax.training import optimizer as optimizers
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.training.steps import build_train_step


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


def build_step(config: ConfigDict, network: RefineNet, layout: Layout) -> Step:
    """The step for batches of config.train.batch_size crops over the layout.

    network: only its structure is used; it may be abstract.
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
        functools.partial(losses.cross_entropy, resolution=config.loss.resolution),
        layout,
        frozen_statistics=config.model.batch_norm != "trained",
    )
    state = jax.eval_shape(lambda n: create_state(n, optimizer, config.seed), network)
    return Step(
        function,
        optimizer,
        with_sharding(state, layout.state),
        _abstract_batch(config, network, layout),
    )


def _abstract_batch(
    config: ConfigDict, network: RefineNet, layout: Layout
) -> dict[str, jax.ShapeDtypeStruct]:
    size, crop = config.train.batch_size, config.data.crop_size
    channels = network.architecture.channels
    shapes = {"image": (size, crop, crop, channels), "label": (size, crop, crop)}
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=layout.batch)
        for name, shape in shapes.items()
    }

"""Learning-rate schedules and optimisers, from Optax."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from refinenet_jax.models.leaves import is_of_backbone, is_of_norm


def schedule(
    name: Literal["constant", "step", "poly", "cosine"],
    learning_rate: float,
    num_steps: int,
    *,
    warmup_steps: int = 0,
    step_at: Sequence[float] = (0.5, 0.8),
    step_factor: float = 0.1,
    poly_power: float = 0.9,
) -> optax.Schedule:
    """Learning rate at each step, counted from 0.

    Example:
        rate = schedule("poly", 1e-2, num_steps=1000, warmup_steps=100)
        assert rate(0) < rate(99) and rate(999) < rate(500)

    Args:
        name: how the rate falls from the end of the warm-up to `num_steps`.
        learning_rate: the highest.
        num_steps: of the whole training.
        warmup_steps: of a linear rise, whose first step already moves.
        step_at: shares of num_steps where "step" multiplies the rate ...
        step_factor: ... by this.
        poly_power: of "poly".
    """
    length = max(num_steps - warmup_steps, 1)
    if name == "constant":
        main = optax.constant_schedule(learning_rate)
    elif name == "step":
        steps = {
            round(share * num_steps) - warmup_steps: step_factor for share in step_at
        }
        main = optax.piecewise_constant_schedule(learning_rate, steps)
    elif name == "poly":
        main = optax.polynomial_schedule(learning_rate, 0.0, poly_power, length)
    else:
        main = optax.cosine_decay_schedule(learning_rate, length)
    if warmup_steps == 0:
        return main
    ramp = optax.linear_schedule(
        learning_rate / warmup_steps, learning_rate, max(warmup_steps - 1, 1)
    )
    return optax.join_schedules([ramp, main], [warmup_steps])


def build_optimizer(
    name: Literal["sgd", "adamw"],
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.0,
    encoder_multiplier: float = 1.0,
    freezes_norms: bool = False,
) -> optax.GradientTransformation:
    """SGD with momentum or AdamW, with a learning rate of its own for the backbone.

    SGD adds weight_decay × parameter to the gradient before the momentum, as torch's
    SGD and the paper's code do; AdamW decays after. The tree of the state depends on
    the name alone, so that a run can go on with other options.

    Example:
        optimizer = build_optimizer("sgd", 5e-4, encoder_multiplier=0.1)
        trained = nnx.Optimizer(network, optimizer, wrt=nnx.Param)

    Args:
        name: which.
        learning_rate: a number or a schedule.
        momentum: of SGD.
        weight_decay: on every parameter.
        clip_norm: of the whole gradient; 0: off.
        encoder_multiplier: of the backbone's learning rate.
        freezes_norms: scale and bias of every BatchNorm keep their values.
    """
    if not callable(learning_rate):
        learning_rate = optax.constant_schedule(learning_rate)
    decay = optax.add_decayed_weights(weight_decay)
    if name == "sgd":
        direction = [decay, optax.trace(momentum)]
    else:
        direction = [optax.scale_by_adam(), decay]
    # Both have an empty state, as what takes their place where they are switched off.
    identity = optax.identity()
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else identity
    return optax.chain(
        clip,
        *direction,
        optax.masked(optax.scale(encoder_multiplier), _is_backbone),
        optax.scale_by_learning_rate(learning_rate),
        optax.stateless(_without_norms) if freezes_norms else identity,
    )


def _is_backbone(params: nnx.State) -> Any:
    return nnx.map_state(lambda path, _: is_of_backbone(path), params)


def _without_norms(updates: Any, params: Any) -> Any:
    """Zero for scale and bias of every BatchNorm."""
    del params
    return nnx.map_state(
        lambda path, update: (
            jax.tree.map(jnp.zeros_like, update) if is_of_norm(path) else update
        ),
        updates,
    )

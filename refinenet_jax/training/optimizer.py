"""Learning-rate schedules and optimisers, from Optax."""

from typing import Any

import optax
from flax import nnx
from ml_collections import ConfigDict

from refinenet_jax.models.leaves import is_of_backbone, is_of_norm


def schedule(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """Learning rate at each step, counted from 0.

    config: the group `optimizer`. The schedule runs from the end of the warm-up to
    `num_steps`.
    """
    rate, warmup = config.learning_rate, config.warmup_steps
    length = max(num_steps - warmup, 1)
    if config.schedule == "constant":
        main = optax.constant_schedule(rate)
    elif config.schedule == "step":
        steps = {
            round(share * num_steps) - warmup: config.step_factor
            for share in config.step_at
        }
        main = optax.piecewise_constant_schedule(rate, steps)
    elif config.schedule == "poly":
        main = optax.polynomial_schedule(rate, 0.0, config.poly_power, length)
    else:
        main = optax.cosine_decay_schedule(rate, length)
    if warmup == 0:
        return main
    # The first step already moves.
    ramp = optax.linear_schedule(rate / warmup, rate, max(warmup - 1, 1))
    return optax.join_schedules([ramp, main], [warmup])


def build_optimizer(
    config: ConfigDict, num_steps: int, *, freezes_norms: bool
) -> optax.GradientTransformation:
    """SGD with momentum or AdamW, with a learning rate of its own for the backbone.

    config: the group `optimizer`. SGD adds weight_decay × parameter to the gradient
    before the momentum, as torch's SGD and the paper's code do; AdamW decays after.

    freezes_norms: scale and bias of every BatchNorm keep their values.
    """
    decay = optax.add_decayed_weights(config.weight_decay)
    if config.name == "sgd":
        direction = [decay, optax.trace(config.momentum)]
    else:
        direction = [optax.scale_by_adam(), decay]
    # It has an empty state: switching on clipping in a running workdir is possible.
    identity = optax.identity()
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else identity
    return optax.chain(
        clip,
        *direction,
        optax.masked(optax.scale(config.encoder_multiplier), _is_backbone),
        optax.scale_by_learning_rate(schedule(config, num_steps)),
        optax.masked(optax.set_to_zero(), _is_norm) if freezes_norms else identity,
    )


def _is_backbone(params: nnx.State) -> Any:
    return nnx.map_state(lambda path, _: is_of_backbone(path), params)


def _is_norm(params: nnx.State) -> Any:
    return nnx.map_state(lambda path, _: is_of_norm(path), params)

"""The loss that a config asks for."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.assembly.data import JobData, class_pixels
from refinenet_jax.data.class_counts import inverse_frequency, median_frequency
from refinenet_jax.errors import UserError, listed
from refinenet_jax.training import losses

_FROM_COUNTS = {"inverse": inverse_frequency, "median_frequency": median_frequency}


def class_weights(config: ConfigDict, data: JobData) -> tuple[float, ...] | None:
    """The weight of each class; None where all weigh the same.

    All processes must call this: one of them may have to count pixels.

    Args:
        config: the whole configuration.
        data: with config.data.train_split opened.

    Raises:
        UserError: there are more or fewer than classes, or all are 0.
    """
    balance, given = config.loss.balance, config.loss.class_weights
    names = data.dataset.class_names
    if balance != "none":
        if given:
            raise UserError(
                f"config.loss.balance={balance!r} and config.loss.class_weights both set "
                "weights: set one of them"
            )
        counts = class_pixels(data.sources[config.data.train_split])
        weights = tuple(np.round(_FROM_COUNTS[balance](counts), 4).tolist())
        shown = [f"{n} {w:g}" for n, w in zip(names, weights, strict=True)]
        log.say(f"class weights: {listed(shown, 40)}")
        return weights
    if not given:
        return None
    weights = tuple(float(weight) for weight in given)
    if len(weights) != len(names):
        raise UserError(
            f"config.loss.class_weights has {len(weights)} numbers, but "
            f"{data.dataset.name} has {len(names)} classes: give one for each, in the "
            f"order {listed(names, 10)}"
        )
    if not any(weights):
        raise UserError("config.loss.class_weights are all 0: give a class some weight")
    return weights


def build_loss(
    config: ConfigDict, class_weights: Sequence[float] | None
) -> losses.Loss:
    """The sum of the terms that have a weight.

    Args:
        config: the whole configuration.
        class_weights: one for each class; None: all weigh the same.

    Raises:
        UserError: no term has a weight.
    """
    settings = config.loss
    resolution = settings.resolution
    soft: dict[str, Any] = {
        "resolution": resolution,
        "class_weights": class_weights,
        "label_smoothing": settings.label_smoothing,
    }
    all_terms: list[tuple[float, losses.Loss]] = [
        (settings.cross_entropy, functools.partial(losses.cross_entropy, **soft)),
        (
            settings.focal,
            functools.partial(
                losses.focal,
                resolution=resolution,
                gamma=settings.focal_gamma,
                class_weights=class_weights,
            ),
        ),
        (
            settings.ohem,
            functools.partial(
                losses.ohem,
                threshold=settings.ohem_threshold,
                least=settings.ohem_least,
                **soft,
            ),
        ),
        (settings.dice, functools.partial(losses.dice, resolution=resolution)),
        (
            settings.lovasz,
            functools.partial(losses.lovasz_softmax, resolution=resolution),
        ),
    ]
    terms = [(weight, term) for weight, term in all_terms if weight]
    if not terms:
        raise UserError(
            "config.loss: all weights are 0, so nothing is minimised; set one of "
            "cross_entropy, focal, ohem, dice and lovasz"
        )
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return losses.weighted_sum(*terms)

"""What single pixels lose: of scores and labels of one size.

Scores are float32 [B,h,w,classes], labels integer [B,h,w].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from refinenet_jax.labels import IGNORE_LABEL

_SMALLEST = 1e-7  # chance of a mistake of which a power still has a slope


def summed(
    logits: jax.Array,
    label: jax.Array,
    weights: jax.Array | None = None,
    *,
    function: Callable[..., jax.Array],
) -> jax.Array:
    """Of the losses of all valid pixels: → float32 []."""
    valid = label != IGNORE_LABEL
    found = function(logits, jnp.where(valid, label, 0).astype(jnp.int32), weights)
    return jnp.where(valid, found, 0).sum()


def cross_entropies(
    logits: jax.Array, label: jax.Array, weights: jax.Array | None, *, smoothing: float
) -> jax.Array:
    """Of each pixel, whatever it is labelled: [B,h,w]."""
    found = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if weights is not None:
        found *= of_class(label, weights)
    if not smoothing:
        return found
    others = -jax.nn.log_softmax(logits)
    if weights is not None:
        others *= weights.reshape(1, 1, 1, -1)
    return (1 - smoothing) * found + smoothing * others.mean(-1)


def focals(
    logits: jax.Array, label: jax.Array, weights: jax.Array | None, *, gamma: float
) -> jax.Array:
    """Of each pixel, whatever it is labelled: [B,h,w]."""
    surprise = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    found = jnp.maximum(-jnp.expm1(-surprise), _SMALLEST) ** gamma * surprise
    return found if weights is None else found * of_class(label, weights)


def surprises(logits: jax.Array, label: jax.Array) -> jax.Array:
    """−log of the chance of the true class, never below +0: [B,h,w]."""
    known = jnp.where(label == IGNORE_LABEL, 0, label).astype(jnp.int32)
    return jnp.abs(optax.softmax_cross_entropy_with_integer_labels(logits, known))


def overlaps(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Of each class, float32 [classes]: Σpy, Σp and Σy over the valid pixels."""
    valid = (label != IGNORE_LABEL)[..., None]
    chances = jnp.where(valid, jax.nn.softmax(logits), 0)
    true = valid & jax.nn.one_hot(label, logits.shape[-1], dtype=jnp.bool_)
    pixels = (0, 1, 2)
    return (
        jnp.where(true, chances, 0).sum(pixels),
        chances.sum(pixels),
        true.sum(pixels).astype(jnp.float32),
    )


def of_class(label: jax.Array, weights: jax.Array) -> jax.Array:
    """The weight of each pixel, 0 of those that do not count: float32 [B,h,w]."""
    # Looked up: with the classes as an axis, XLA takes the sum out of the loop over the
    # bands, and it is as large as all scores.
    table = jnp.pad(weights[:IGNORE_LABEL], (0, 256 - min(len(weights), IGNORE_LABEL)))
    return table[label]


def counts(label: jax.Array, classes: int) -> jax.Array:
    """Pixels of each class: int32 [classes].

    A class at a time: all at once would take the memory of the scores.
    """
    valid = label != IGNORE_LABEL
    return lax.map(lambda n: ((label == n) & valid).sum(), jnp.arange(classes))

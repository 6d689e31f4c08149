"""The Lovász extension of the Jaccard loss, a class at a time."""

import jax
import jax.numpy as jnp
from jax import lax

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.training import bands, pixels


@jax.custom_vjp
def lovasz_extension(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Berman et al. 2018, equations 9 and 11, over all pixels as one set.

    For each class that occurs, the error of a pixel is 1 − p where it is of the class
    and p where it is not. The errors are sorted, and each is weighted by what 1 − IoU
    gains when its pixel is the next to be wrong. The gradient is taken at the same time.

    Of what there is once for each pixel of the label there are, with their copies in
    order, about ten numbers of 4 bytes at a time, whatever the number of classes. An
    order is of all pixels: where they are divided among devices, each device gathers
    the errors of one class after the other and sorts all of them.

    Args:
        logits: float32 [B,h,w,classes].
        label: integer [B,H,W], 255 = ignore; the logits are resized to it.

    Returns:
        float32 [], the mean over the classes that occur; 0 where none does.
    """
    return _value_and_gradient(logits, label)[0]


def _value_and_gradient(
    logits: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    row_weights, banded = bands.bands(logits, label)
    valid = banded != IGNORE_LABEL

    def normalisers(logits: jax.Array) -> jax.Array:
        """Logs of Σ exp of the scores: [n,B,rows,W]."""

        @jax.checkpoint
        def of_band(band: bands.Band) -> jax.Array:
            return jax.nn.logsumexp(bands.enlarged(logits, band), axis=-1)

        return lax.map(of_band, (row_weights, banded))

    normaliser, pull_normaliser = jax.vjp(normalisers, logits)
    numbers = jnp.arange(logits.shape[-1])
    sizes = pixels.counts(banded, len(numbers))
    occurring = jnp.maximum((sizes > 0).sum(), 1)

    def of_class(
        plane: jax.Array, number: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Value, and gradients for the scores of the class and for the normaliser."""
        true = banded == number

        def errors(plane: jax.Array, normaliser: jax.Array) -> jax.Array:
            scores = bands.enlarged_plane(plane, row_weights, banded.shape[-1])
            chances = jnp.exp(scores - normaliser)
            return jnp.where(valid, jnp.where(true, 1 - chances, chances), 0)

        found, pull = jax.vjp(errors, plane, normaliser)
        slopes = _slopes(found, true, valid, count) / occurring
        return (found * slopes).sum(), *pull(slopes)

    def nothing(
        plane: jax.Array, number: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        del number, count
        return jnp.zeros(()), jnp.zeros_like(plane), jnp.zeros_like(normaliser)

    def add(
        totals: tuple[jax.Array, jax.Array],
        each: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        value, of_plane, of_normaliser = lax.cond(each[2] > 0, of_class, nothing, *each)
        return (totals[0] + value, totals[1] + of_normaliser), of_plane

    start = jnp.zeros(()), jnp.zeros_like(normaliser)
    planes = jnp.moveaxis(logits, -1, 0)
    (value, of_normaliser), gradients = lax.scan(add, start, (planes, numbers, sizes))
    [through_normaliser] = pull_normaliser(of_normaliser)
    return value, jnp.moveaxis(gradients, 0, -1) + through_normaliser


def _slopes(
    errors: jax.Array, true: jax.Array, valid: jax.Array, count: jax.Array
) -> jax.Array:
    """What each error is weighted by: gains of 1 − IoU in the order of the errors.

    The largest goes first. Written as differences of IoUs the gains would be rounded
    away: with I left of the class and U in the union, a pixel of the class gains 1/U,
    another I/(U·(U − 1)).

    Args:
        errors: float32 [...], not negative.
        true: bool, the same shape: the pixels of the class.
        valid: bool, the same shape: those that count.
        count: int32 [], the pixels of the class, at least 1.

    Returns:
        float32, the same shape; 0 where it is not valid.
    """
    keys = jnp.where(valid, -errors, 1.0).ravel()
    kinds = jnp.where(true, 2, valid).astype(jnp.int8).ravel()
    places = jnp.arange(errors.size, dtype=jnp.int32)
    _, kinds, places = lax.sort((keys, kinds, places), num_keys=1)
    hit, miss = kinds == 2, kinds == 1
    # Whole numbers: as float32 their sums would stop at 16 million.
    left = (count - jnp.cumsum(hit.astype(jnp.int32))).astype(jnp.float32)
    union = (count + jnp.cumsum(miss.astype(jnp.int32))).astype(jnp.float32)
    others = left / (union * jnp.maximum(union - 1, 1))
    gains = jnp.where(hit, 1 / union, jnp.where(miss, others, 0))
    _, gains = lax.sort((places, gains), num_keys=1)
    return gains.reshape(errors.shape)


def _scaled(gradient: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
    return scale * gradient, None


lovasz_extension.defvjp(_value_and_gradient, _scaled)

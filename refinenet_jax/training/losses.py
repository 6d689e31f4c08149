"""Losses over the labelled pixels of a whole batch, each of (logits, label, resolution).

Logits are float32 [B,h,w,classes], labels integer [B,H,W] class ids with 255 = ignore.
Resolution "label" resizes the logits to [H,W] (bilinear, half-pixel centres, as the
light-weight RefineNet's code); "prediction" picks the nearest label of each logit (as
the paper's code). A loss is float32 [], and 0 where no pixel is valid.

Under `jax.jit` the arrays are those of all devices, and so are the sums, the orders and
the classes that occur.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.training import bands, pixels
from refinenet_jax.training.lovasz import lovasz_extension

Resolution = Literal["label", "prediction"]
# (outputs float32 [B,h,w,num_outputs], label uint8 [B,H,W]) → float32 [].
Loss = Callable[[jax.Array, jax.Array], jax.Array]
Labels = jax.Array | np.ndarray
# One for each class; outputs beyond them, such as void's, have 0.
Weights = Sequence[float] | np.ndarray | None


def cross_entropy(
    logits: jax.Array,
    label: Labels,
    resolution: Resolution,
    *,
    class_weights: Weights = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Mean cross-entropy over the valid pixels of the global batch.

    With weights it is the weighted mean, as torch's `cross_entropy` has it, and with
    smoothing the target is the mixture that torch's is.

    Example:
        logits = jnp.zeros((4, 16, 12, 3))  # of a quarter of the size of the labels
        loss = cross_entropy(logits, labels, "label")
        np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)

    Args:
        logits: float32 [B,h,w,classes].
        label: integer [B,H,W].
        resolution: see above.
        class_weights: of the pixels of each class.
        label_smoothing: share of the target that all classes have alike.
    """
    function = functools.partial(pixels.cross_entropies, smoothing=label_smoothing)
    return _weighted_mean(function, logits, label, resolution, class_weights)


def focal(
    logits: jax.Array,
    label: Labels,
    resolution: Resolution,
    *,
    gamma: float = 2.0,
    class_weights: Weights = None,
) -> jax.Array:
    """Weighted mean of (1 − p)^gamma · −log p, p the chance of the true class.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", with the softmax in place
    of the sigmoid; `class_weights` are its alpha.

    Example:
        logits = jnp.zeros((4, 16, 12, 3))
        loss = losses.focal(logits, labels, "label", gamma=2)
        np.testing.assert_allclose(loss, (2 / 3) ** 2 * np.log(3), rtol=1e-6)
    """
    function = functools.partial(pixels.focals, gamma=gamma)
    return _weighted_mean(function, logits, label, resolution, class_weights)


def ohem(
    logits: jax.Array,
    label: Labels,
    resolution: Resolution,
    *,
    threshold: float = 0.7,
    least: float = 1 / 16,
    class_weights: Weights = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Cross-entropy of the hard pixels alone (online hard example mining).

    Hard is a pixel whose true class has a chance below `threshold`, and the share
    `least` of the valid pixels of the global batch that have the lowest chances, all
    of those that share the last place. Shrivastava et al. 2016, with a threshold and a
    floor as in the code for BiSeNet and mmsegmentation. It keeps a number of 4 bytes
    for each pixel of the label while the hard ones are found.

    Example:
        logits = jnp.zeros((4, 16, 12, 3))
        loss = losses.ohem(logits, labels, "label", threshold=0.7)
        np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)
    """
    label = _at(resolution, logits, label)
    surprise = jnp.where(
        label == IGNORE_LABEL, -1.0, _of_each(pixels.surprises, logits, label)
    )
    bits = lax.bitcast_convert_type(lax.stop_gradient(surprise), jnp.int32)
    count = jnp.ceil(least * (label != IGNORE_LABEL).sum())
    hard = (surprise > -np.log(threshold)) | (bits >= _in_place(bits, count))
    return cross_entropy(
        logits,
        jnp.where(hard, label, IGNORE_LABEL),
        resolution,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )


def dice(logits: jax.Array, label: Labels, resolution: Resolution) -> jax.Array:
    """1 − Dice of soft predictions, 2·Σpy / (Σp + Σy), mean over classes that occur.

    The sums are over the valid pixels of the global batch. Milletari et al. 2016 with
    plain sums below, as Sudre et al. 2017.

    Example:
        logits = jnp.zeros((4, 16, 12, 2))
        loss = losses.dice(logits, jnp.zeros((4, 64, 48), jnp.uint8), "label")
        np.testing.assert_allclose(loss, 1 - 1 / 1.5, rtol=1e-6)
    """
    label = _at(resolution, logits, label)
    both, predicted, true = (
        pixels.overlaps(logits, label)
        if label.shape == logits.shape[:3]
        else bands.sums(pixels.overlaps, logits, label)
    )
    occurs = true > 0
    scores = 2 * both / jnp.where(occurs, predicted + true, 1)
    return jnp.where(occurs, 1 - scores, 0).sum() / jnp.maximum(occurs.sum(), 1)


def lovasz_softmax(
    logits: jax.Array, label: Labels, resolution: Resolution
) -> jax.Array:
    """The Lovász extension of 1 − IoU, mean over the classes that occur.

    Berman, Rannen Triki, Blaschko 2018, "The Lovász-Softmax loss", with all valid
    pixels of the global batch as one set. For each class that occurs they are sorted
    by their error, on every device all of them: see `lovasz.lovasz_extension`.

    Example:
        logits = jnp.zeros((4, 16, 12, 2))
        loss = losses.lovasz_softmax(logits, jnp.zeros((4, 64, 48), jnp.uint8), "label")
        np.testing.assert_allclose(loss, 0.5, rtol=1e-5)
    """
    return lovasz_extension(logits, _at(resolution, logits, label))


def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
    """Σ weight · loss, as a loss for `build_train_step`.

    Example:
        entropy = functools.partial(losses.cross_entropy, resolution="label")
        overlap = functools.partial(losses.lovasz_softmax, resolution="label")
        loss = losses.weighted_sum((1.0, entropy), (0.5, overlap))
        logits = jnp.zeros((4, 16, 12, 3))
        np.testing.assert_allclose(
            loss(logits, labels), entropy(logits, labels) + overlap(logits, labels) / 2
        )
    """

    def loss(outputs: jax.Array, label: jax.Array) -> jax.Array:
        return sum(
            (weight * term(outputs, label) for weight, term in terms),
            start=jnp.zeros((), jnp.float32),
        )

    return loss


def valid_pixels(
    outputs: jax.Array,
    label: Labels,
    resolution: Resolution = "label",
    *,
    class_weights: Weights = None,
) -> jax.Array:
    """Sum of the weights, 1 where there are none, of the pixels that count.

    It is what `cross_entropy` and `focal` are divided by.

    Example:
        logits = jnp.zeros((1, 1, 1, 2))
        assert losses.valid_pixels(logits, jnp.array([[[0, 255, 1]]])) == 2

    Returns:
        float32 [].
    """
    label = _at(resolution, outputs, label)
    if class_weights is None:
        return (label != IGNORE_LABEL).sum().astype(jnp.float32)
    return _total(label, _weights(class_weights, outputs.shape[-1]))


def nearest(label: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Labels at pixel centres: [B,H,W] → [B,h,w], as MATLAB's imresize "nearest".

    Example:
        assert nearest(labels, (16, 12)).shape == (4, 16, 12)
    """
    rows, columns = (
        ((jnp.arange(to) + 0.5) * (size / to)).astype(jnp.int32)
        for to, size in zip(shape, label.shape[1:3], strict=True)
    )
    return label[:, rows][:, :, columns]


def _at(resolution: Resolution, logits: jax.Array, label: Labels) -> jax.Array:
    """The label that the logits are compared with."""
    label = jnp.asarray(label)
    if resolution == "prediction":
        _, height, width, _ = logits.shape
        return nearest(label, (height, width))
    return label


def _weighted_mean(
    function: bands.OfPixels[jax.Array],
    logits: jax.Array,
    label: Labels,
    resolution: Resolution,
    class_weights: Weights,
) -> jax.Array:
    """Of a loss of pixels: (logits, label, weights float32 [classes]) → [B,rows,W]."""
    label = _at(resolution, logits, label)
    weights = None
    if class_weights is not None:
        weights = _weights(class_weights, logits.shape[-1])
    constants = () if weights is None else (weights,)
    if label.shape == logits.shape[:3]:
        total = pixels.summed(logits, label, *constants, function=function)
    else:
        summed = functools.partial(pixels.summed, function=function)
        total = bands.sum_with_gradient(summed, logits, label, constants)
    if weights is None:
        return total / jnp.maximum((label != IGNORE_LABEL).sum(), 1)
    over = _total(label, weights)
    return total / jnp.where(over > 0, over, 1)


def _total(label: jax.Array, weights: jax.Array) -> jax.Array:
    """Of the weights of all pixels, float32 []."""
    number_of = pixels.counts(label, len(weights)).astype(jnp.float32)
    return (number_of * weights).sum()


def _of_each(
    function: bands.OfPixels[jax.Array], logits: jax.Array, label: jax.Array
) -> jax.Array:
    if label.shape == logits.shape[:3]:
        return function(logits, label)
    return bands.of_each(function, logits, label)


def _in_place(bits: jax.Array, place: jax.Array) -> jax.Array:
    """The `place`-th largest, from 1 on, of int32 [...] that are not negative → [].

    Found bit by bit, which takes 31 counts and no sorting: of arrays that are divided
    among devices only the counts are added.
    """

    def narrow(number: jax.Array, lowest: jax.Array) -> jax.Array:
        raised = lowest | (1 << (30 - number))
        return jnp.where((bits >= raised).sum() >= place, raised, lowest)

    return lax.fori_loop(0, 31, narrow, jnp.zeros((), jnp.int32))


def _weights(class_weights: Sequence[float] | np.ndarray, outputs: int) -> jax.Array:
    given = np.asarray(class_weights, np.float32)
    return jnp.asarray(np.pad(given, (0, outputs - len(given))))

"""How the class probabilities of an image are made: scales, flip, windows, fusion.

All of it is traced into one program, with the true sizes of padded images traced along.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.resize import (
    resize,
    resize_weights,
    scaled_sizes,
    weighted,
)

Shape = tuple[int, int]
Network = Callable[[FeatureMap], FeatureMap]

# Sizes within a program are multiples of the coarsest stride of the networks.
_MULTIPLE = 32
_BAND = 64  # rows of an image whose probabilities are there together
# Lin et al. 2017, released code: log-probabilities below this are not told apart.
_LEAST_LOG_PROBABILITY = -20.0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is done with an image to predict it.

    Attributes:
      short_edge: the shortest edge is brought into this range before all else, in
        pixels.
      scales: the network sees the image at each of these sizes, relative to that.
      flip: whether it sees each of them mirrored as well.
      fusion: "softmax" enlarges the network's scores bilinearly to the size of the
        image and averages their softmax; "log_softmax" enlarges the logarithms of the
        probabilities bicubically and averages their exponentials, as the code of Lin et
        al. 2017 does.
      window: edge of the square windows that an image is cut into, in pixels; 0: the
        network sees it as a whole.
      overlap: share of a window that the next one covers too, 0 <= overlap < 1.
    """

    short_edge: tuple[int, int]
    scales: tuple[float, ...]
    flip: bool
    fusion: str
    window: int
    overlap: float

    def to_json(self) -> dict[str, Any]:
        """The fields, ready for eval.json."""
        return dataclasses.asdict(self)

    def base_size(self, size: Shape) -> Shape:
        """The size of an image of `size` with its short edge brought into range."""
        short = min(size)
        smallest, largest = self.short_edge
        factor = min(max(short, smallest), largest) / short
        height, width = (max(1, round(length * factor)) for length in size)
        return height, width

    def probabilities(
        self,
        network: Network,
        image: FeatureMap,
        base: tuple[Shape, jax.Array] | None,
    ) -> jax.Array:
        """Class probabilities at the size of the image.

        Args:
          network: normalised pictures [B,H,W,channels] → scores [B,h,w,C], see
            `RefineNet.forward`.
          image: normalised, float32 [B,H,W,channels], with its true size.
          base: a height and a width that hold every base size, and int32 [B,2], what
            `base_size` gives for each image; None where it leaves all as they are.

        Returns:
          float32 [B,H,W,C]; sums to 1 at each pixel that is not padding.
        """
        views = self._views(network, image, base)
        return self._fused(views, [self._row_weights(v, image) for v in views], image)

    def classes(
        self,
        network: Network,
        image: FeatureMap,
        base: tuple[Shape, jax.Array] | None,
    ) -> jax.Array:
        """Class ids at the size of the image, uint8 [B,H,W]; arguments as above.

        Those of the largest of `probabilities`, of a band of rows at a time: nothing of
        all classes is written at the size of the image.
        """
        views = self._views(network, image, base)
        batch, height, width, _ = image.values.shape
        rows = min(_BAND, height)
        count = -(-height // rows)
        bands = []
        for view in views:
            weights = self._row_weights(view, image)
            weights = jnp.pad(weights, [(0, 0), (0, count * rows - height), (0, 0)])
            # Every count-th row is of a band, so that devices that share a picture by
            # its rows share each band.
            shape = batch, rows, count, weights.shape[-1]
            bands.append(jnp.moveaxis(weights.reshape(shape), 2, 0))

        def of_band(row_weights: list[jax.Array]) -> jax.Array:
            shares = self._fused(views, row_weights, image)
            return jnp.argmax(shares, axis=-1).astype(jnp.uint8)

        found = lax.map(of_band, bands)
        whole = jnp.moveaxis(found, 0, 2).reshape(batch, rows * count, width)
        return whole[:, :height]

    def _views(
        self,
        network: Network,
        image: FeatureMap,
        base: tuple[Shape, jax.Array] | None,
    ) -> list["_View"]:
        """What the network says of each scale, as it is and mirrored."""
        views = []
        for scale in self.scales:
            for mirrored in (False, True)[: 1 + self.flip]:
                seen = _scaled(image, scale, base)
                if mirrored:
                    seen = _mirrored(seen)
                scores = self._scores(network, seen)
                if self.fusion == "log_softmax":
                    logarithms = jax.nn.log_softmax(scores.values)
                    floored = jnp.maximum(logarithms, _LEAST_LOG_PROBABILITY)
                    scores = scores.with_values(floored)
                # One view after the other, so that their features share their memory.
                image, scores = lax.optimization_barrier((image, scores))
                views.append(_View(scores, mirrored))
        return views

    def _scores(self, network: Network, seen: FeatureMap) -> FeatureMap:
        """The network's scores: of the whole picture, or fused from windows of it."""
        if self.window:
            stride = max(1, round(self.window * (1 - self.overlap)))
            return _by_windows(network, seen, self.window, stride)
        return network(seen)

    def _row_weights(self, view: "_View", image: FeatureMap) -> jax.Array:
        """Of the scores' rows in each row of the image, float32 [B,H,h]."""
        return self._weights(view, image, axis=1)

    def _weights(self, view: "_View", image: FeatureMap, axis: int) -> jax.Array:
        return resize_weights(
            view.scores.values.shape[axis],
            image.values.shape[axis],
            _size(view.scores)[:, axis - 1],
            _size(image)[:, axis - 1],
            "bilinear" if self.fusion == "softmax" else "bicubic",
        )

    @jax.named_scope("probabilities")
    def _fused(
        self,
        views: Sequence["_View"],
        row_weights: Sequence[jax.Array],
        image: FeatureMap,
    ) -> jax.Array:
        """Probabilities in some rows of the image, float32 [B,rows,W,C].

        row_weights: for each view, of the scores' rows in these, [B,rows,h].
        """
        total = jnp.zeros(())
        for view, weights in zip(views, row_weights, strict=True):
            rows = weighted(view.scores.filled(0), weights, 1)
            enlarged = weighted(rows, self._weights(view, image, axis=2), 2)
            if self.fusion == "softmax":
                shares = jax.nn.softmax(enlarged)
            else:
                shares = jnp.exp(enlarged)
            if view.mirrored:
                shares = _mirrored(FeatureMap(shares, image.size)).values
            total = total + shares
        # The bicubic kernel overshoots: its results do not quite sum to 1.
        return total / total.sum(axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class _View:
    """What the network says of an image that it sees in one way.

    Attributes:
        scores: [B,h,w,C], or logarithms of their softmax.
        mirrored: left and right are exchanged.
    """

    scores: FeatureMap
    mirrored: bool


def _scaled(
    image: FeatureMap, scale: float, base: tuple[Shape, jax.Array] | None
) -> FeatureMap:
    """What the network sees at one scale, [B,H',W',channels]."""
    if base is None and scale == 1:
        return image
    base_shape, base_size = base or (image.values.shape[1:3], _size(image))
    height, width = (
        -(-max(1, round(length * scale)) // _MULTIPLE) * _MULTIPLE
        for length in base_shape
    )
    size = jnp.maximum(scaled_sizes(base_size, scale), 1)
    return resize(image, (height, width), size, "bilinear")


def _mirrored(x: FeatureMap) -> FeatureMap:
    """Left and right exchanged within the true width, [B,H,W,C]."""
    column = jnp.arange(x.values.shape[2])
    source = jnp.maximum(_size(x)[:, 1, None] - 1 - column[None], 0)
    values = jnp.take_along_axis(x.values, source[:, None, :, None], axis=2)
    return x.with_values(values)


def _size(x: FeatureMap) -> jax.Array:
    """The true sizes, which pictures to be predicted always bring along: int32 [B,2]."""
    assert x.size is not None
    return x.size


def _by_windows(
    network: Network, picture: FeatureMap, window: int, stride: int
) -> FeatureMap:
    """Mean scores of overlapping windows, at the size of the picture: [B,H,W,C].

    The windows that an image has, and where its last ones end, follow from its true
    size, as if it were not padded. One window after the other runs in the same loop.
    """
    batch, *shape, _ = picture.values.shape
    window_shape = [min(window, length) for length in shape]
    counts = [
        -(-(length - edge) // stride) + 1
        for length, edge in zip(shape, window_shape, strict=True)
    ]
    # The corner of each picture's last window.
    reach = jnp.maximum(_size(picture) - np.array([window_shape]), 0)

    def add(totals: FeatureMap, place: jax.Array) -> tuple[FeatureMap, None]:
        corner = jnp.minimum(place[None] * stride, reach)
        # A window beyond the one that reaches the border would count it twice.
        wanted = jnp.all((place == 0)[None] | ((place - 1)[None] * stride < reach), 1)
        scores = _window_scores(network, picture, corner, window_shape)
        weighted = jnp.where(wanted[:, None, None, None], scores, 0)
        return totals.with_values(_add_at(totals.values, weighted, corner)), None

    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, counts), indexing="ij"), -1)
    scores = jax.eval_shape(network, picture)
    zeros = jnp.zeros((batch, *shape, scores.values.shape[-1] + 1), jnp.float32)
    totals, _ = lax.scan(add, FeatureMap(zeros, picture.size), places.reshape(-1, 2))
    sums, covered = totals.values[..., :-1], totals.values[..., -1:]
    return totals.with_values(sums / jnp.maximum(covered, 1))


def _window_scores(
    network: Network, picture: FeatureMap, corner: jax.Array, shape: list[int]
) -> jax.Array:
    """Scores of one window at its own size and, last, 1 where it is real.

    corner: int32 [B,2]; shape: of the window → float32 [B,*shape,C+1].
    """
    height, width = shape

    def cut(values: jax.Array, corner: jax.Array) -> jax.Array:
        top, left = corner
        return lax.dynamic_slice(
            values, (top, left, 0), (height, width, values.shape[-1])
        )

    size = jnp.minimum(_size(picture) - corner, np.array([shape]))
    seen = FeatureMap(jax.vmap(cut)(picture.values, corner), size)
    scores = resize(network(seen), (height, width), size, "bilinear")
    ones = jnp.ones((*scores.values.shape[:-1], 1), jnp.float32)
    return scores.with_values(jnp.concatenate([scores.values, ones], -1)).filled(0)


def _add_at(totals: jax.Array, values: jax.Array, corner: jax.Array) -> jax.Array:
    """Adds [B,h,w,C] to [B,H,W,C] at int32 [B,2]."""

    def add(total: jax.Array, value: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], 0)
        before = lax.dynamic_slice(total, start, value.shape)
        return lax.dynamic_update_slice(total, before + value, start)

    return jax.vmap(add)(totals, values, corner)


# One look at the whole image, as most ports evaluate.
PLAIN = Protocol(
    short_edge=(1, 100_000),
    scales=(1.0,),
    flip=False,
    fusion="softmax",
    window=0,
    overlap=0.0,
)

"""Builds a network from the name of its variant."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.layers import FeatureMap, resize
from refinenet_jax.models.light_weight import LightWeightBlock
from refinenet_jax.models.refinenet import RefineNet, RefineNetBlock
from refinenet_jax.models.resnet import ResNet

_full = partial(RefineNet, block=RefineNetBlock, classifier_dropout=0.5)
_light_weight = partial(RefineNet, block=LightWeightBlock, classifier_dropout=0.0)

# variant: (backbone, decoder).
VARIANTS: dict[str, tuple[str, Callable[..., RefineNet]]] = {
    "resnet50": ("resnet50", _full),
    "resnet101": ("resnet101", _full),
    "resnet152": ("resnet152", _full),
    "light_resnet18": ("resnet18", _light_weight),
    "light_resnet50": ("resnet50", _light_weight),
    "light_resnet101": ("resnet101", _light_weight),
    "light_resnet152": ("resnet152", _light_weight),
}


class SegmentationNetwork(nnx.Module):
    """A backbone and the decoder that refines its taps.

    image: float [B,H,W,3] normalised → logits float32 [B,h,w,num_classes], where h and
    w are a quarter of H and W times `input_scale`, rounded up.
    """

    def __init__(self, backbone: nnx.Module, decoder: RefineNet, input_scale: float):
        self.backbone = backbone
        self.decoder = decoder
        self.input_scale = input_scale

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.score(FeatureMap(image)).values

    def score(self, image: FeatureMap, *, rngs: nnx.Rngs | None = None) -> FeatureMap:
        """Logits of padded pictures: [B,H,W,3] → float32 [B,h,w,num_classes].

        rngs: the stream "dropout", needed in training only.
        """
        logits = self.decoder(self.backbone(self._scaled(image)), rngs=rngs)
        return logits.with_values(logits.values.astype(jnp.float32))

    def _scaled(self, image: FeatureMap) -> FeatureMap:
        """The authors' code shows the network a larger picture than it was given."""
        if self.input_scale == 1:
            return image
        height, width = (
            round(length * self.input_scale) for length in image.values.shape[1:3]
        )
        size = image.size
        if size is not None:
            size = jnp.round(size * self.input_scale).astype(jnp.int32)
        return resize(image, (height, width), size, "bicubic")


def build(
    variant: str,
    num_classes: int,
    *,
    input_scale: float,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> SegmentationNetwork:
    """A network with random weights, in training mode.

    `nnx.view(network, deterministic=True, use_running_average=True)` is the same
    network for inference.

    Args:
        variant: a key of VARIANTS.
        num_classes: channels of the logits.
        input_scale: the picture is resized by this before the backbone sees it; the
            paper's released networks use 1.2.
        dtype: of the arithmetic, float32 or bfloat16; parameters are float32.
        rngs: the stream "params".

    Raises:
        ValueError: the variant is unknown.
    """
    if variant not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ValueError(f"variant {variant!r} is unknown; known: {known}")
    backbone_name, decoder = VARIANTS[variant]
    backbone = ResNet(backbone_name, dtype=dtype, rngs=rngs)
    return SegmentationNetwork(
        backbone,
        decoder(backbone.tap_channels, num_classes, dtype=dtype, rngs=rngs),
        input_scale,
    )


def split_network(
    network: SegmentationNetwork,
) -> tuple[nnx.GraphDef[SegmentationNetwork], nnx.State, nnx.State]:
    """The structure, the parameters and the BatchNorm statistics of a network."""
    graph, params, batch_stats = nnx.split(network, nnx.Param, nnx.BatchStat)  # type: ignore[misc]
    return graph, params, batch_stats


def normalize(
    image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """uint8 [B,H,W,3] RGB → float32 [B,H,W,3], (image - mean) / std per channel."""
    mean_, std_ = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (mean, std))
    return (image.astype(jnp.float32) - mean_) / std_


def count_parameters(network: nnx.Module) -> int:
    """Number of trained values; BatchNorm statistics are not among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

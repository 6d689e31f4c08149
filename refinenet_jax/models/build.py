"""Builds a network from its description."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.architecture import Architecture
from refinenet_jax.models.efficientnet_lite import efficientnet_lite0
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.light_weight import LIGHT_WEIGHT, LIGHT_WEIGHT_MOBILE
from refinenet_jax.models.mobilenet_v2 import mobilenet_v2
from refinenet_jax.models.refinenet import FULL, Decoder, RefineNet
from refinenet_jax.models.resize import resize
from refinenet_jax.models.resnet import ResNet

_Sizes = TypeVar("_Sizes", np.ndarray, jax.Array)
_RGB = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A line of the table of backbones.

    Attributes:
        build: called with dtype and rngs; a module that gives its taps, the finest
            first, and tells their `tap_strides` and `tap_channels`.
        light_weight: the light-weight decoder that suits it.
        mean, std: RGB in 0..255, what its published weights were trained with.
    """

    build: Callable[..., Any]
    light_weight: Decoder
    mean: _RGB
    std: _RGB


# Of ImageNet, as torchvision normalises.
_IMAGENET: tuple[_RGB, _RGB] = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# As the authors' MATLAB code normalises.
_MATLAB: tuple[_RGB, _RGB] = ((128.0, 128.0, 128.0), (1.0, 1.0, 1.0))
# As EfficientNet-Lite's own code normalises.
_LITE: tuple[_RGB, _RGB] = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


def _resnet(depth: int) -> Backbone:
    return Backbone(partial(ResNet, depth, "torchvision"), LIGHT_WEIGHT, *_IMAGENET)


def _caffe_resnet(depth: int) -> Backbone:
    return Backbone(partial(ResNet, depth, "caffe"), LIGHT_WEIGHT, *_MATLAB)


# ResNet-18 and 34 have no 1×1 convolution that could take the stride: their Caffe form
# differs in its normalisation only.
BACKBONES = {
    "resnet18": _resnet(18),
    "resnet34": _resnet(34),
    "resnet50": _resnet(50),
    "resnet101": _resnet(101),
    "resnet152": _resnet(152),
    "resnet18_caffe": _caffe_resnet(18),
    "resnet34_caffe": _caffe_resnet(34),
    "resnet50_caffe": _caffe_resnet(50),
    "resnet101_caffe": _caffe_resnet(101),
    "resnet152_caffe": _caffe_resnet(152),
    "mobilenet_v2": Backbone(mobilenet_v2, LIGHT_WEIGHT_MOBILE, *_IMAGENET),
    "efficientnet_lite0": Backbone(efficientnet_lite0, LIGHT_WEIGHT_MOBILE, *_LITE),
}

# variant: (backbone, decoder). Every backbone goes with either decoder.
VARIANTS: dict[str, tuple[Backbone, Decoder]] = {
    **{name: (backbone, FULL) for name, backbone in BACKBONES.items()},
    **{
        f"light_{name}": (backbone, backbone.light_weight)
        for name, backbone in BACKBONES.items()
    },
}


class SegmentationNetwork(nnx.Module):
    """A backbone for each scale of the picture and the decoder that refines their taps.

    image: float [B,H,W,3] normalised → logits float32 [B,h,w,num_classes], where h and
    w are a quarter of H and W times the largest input scale, rounded up.
    """

    def __init__(
        self,
        backbones: Sequence[nnx.Module],
        decoder: RefineNet,
        input_scales: tuple[float, ...],
        num_classes: int,
    ):
        self.backbones = nnx.List(backbones)
        self.decoder = decoder
        self.input_scales = input_scales
        self.num_classes = num_classes

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.score(FeatureMap(image)).values

    def score(self, image: FeatureMap) -> FeatureMap:
        """Logits of padded pictures: [B,H,W,3] → float32 [B,h,w,num_classes]."""
        outputs = self.outputs(image)
        return outputs.with_values(outputs.values[..., : self.num_classes])

    def outputs(self, image: FeatureMap, *, rngs: nnx.Rngs | None = None) -> FeatureMap:
        """As `score`, with the output for void at the end where there is one.

        rngs: the stream "dropout", needed in training only.
        """
        taps = [
            tap
            for backbone, scale in zip(self.backbones, self.input_scales, strict=True)
            for tap in backbone(_scaled(image, scale))
        ]
        scores = self.decoder(taps, rngs=rngs)
        return scores.with_values(scores.values.astype(jnp.float32))


def _scaled(image: FeatureMap, scale: float) -> FeatureMap:
    """The authors' code shows the network a larger picture than it was given."""
    if scale == 1:
        return image
    height, width = scaled_sizes(np.asarray(image.values.shape[1:3]), scale).tolist()
    size = None if image.size is None else scaled_sizes(image.size, scale)
    return resize(image, (height, width), size, "bicubic")


def scaled_sizes(sizes: _Sizes, scale: float) -> _Sizes:
    """Integer sizes, on the host or traced, times a number → int32, rounded.

    In float32 in both cases, so that halves are rounded alike.
    """
    return (sizes.astype(np.float32) * np.float32(scale)).round().astype(np.int32)


def build(
    architecture: Architecture, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> SegmentationNetwork:
    """A network with random weights, in training mode.

    `nnx.view(network, deterministic=True, use_running_average=True)` is the same
    network for inference.

    Args:
        architecture: its description.
        dtype: of the arithmetic, float32 or bfloat16; parameters are float32.
        rngs: the stream "params".

    Raises:
        ValueError: the variant is unknown.
    """
    if architecture.variant not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ValueError(f"variant {architecture.variant!r} is unknown; known: {known}")
    backbone, decoder = VARIANTS[architecture.variant]
    backbones = [
        backbone.build(dtype=dtype, rngs=rngs) for _ in architecture.input_scales
    ]
    network = RefineNet(
        [stride for part in backbones for stride in part.tap_strides],
        [channels for part in backbones for channels in part.tap_channels],
        decoder,
        architecture,
        dtype=dtype,
        rngs=rngs,
    )
    return SegmentationNetwork(
        backbones, network, architecture.input_scales, architecture.num_classes
    )


def split_network(
    network: SegmentationNetwork,
) -> tuple[nnx.GraphDef[SegmentationNetwork], nnx.State, nnx.State]:
    """The structure, the parameters and the BatchNorm statistics of a network."""
    graph, params, batch_stats = nnx.split(network, nnx.Param, nnx.BatchStat)  # type: ignore[misc]
    return graph, params, batch_stats


def named_leaves(state: nnx.State) -> dict[str, nnx.Variable]:
    """Leaves of a network by path, such as "backbones.0.stem.conv.kernel"."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def replace_leaves(state: nnx.State, values: Mapping[str, jax.Array]) -> nnx.State:
    """The state with other values for some leaves, by path; all must be its own."""

    def replaced(path: tuple[Any, ...], leaf: nnx.Variable) -> nnx.Variable:
        name = ".".join(map(str, path))
        return leaf.replace(values[name]) if name in values else leaf

    return nnx.map_state(replaced, state)


def normalize(
    image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """uint8 [B,H,W,3] RGB → float32 [B,H,W,3], (image - mean) / std per channel."""
    mean_, std_ = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (mean, std))
    return (image.astype(jnp.float32) - mean_) / std_


def count_parameters(network: nnx.Module) -> int:
    """Number of trained values; BatchNorm statistics are not among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

"""The table of backbones, and what a backbone is.

A backbone of one's own is a module that keeps to `BackboneModule` and a line that
`add_backbone` adds; docs/extending.md shows one in full.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Protocol

from refinenet_jax.errors import unknown
from refinenet_jax.models.blocks import (
    FULL,
    LIGHT_WEIGHT,
    LIGHT_WEIGHT_MOBILE,
    DecoderKind,
)
from refinenet_jax.models.convnext import ConvNeXt
from refinenet_jax.models.efficientnet import efficientnet_b0, efficientnet_lite
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.mobilenet import mobilenet_v2, mobilenet_v3_large
from refinenet_jax.models.resnet import ResNet


class BackboneModule(Protocol):
    """What a decoder needs of a backbone: an nnx.Module with taps.

    Called with pictures, float [B,H,W,channels] normalised, it returns a FeatureMap for
    each tap, the finest first: at 1/stride of the height and width, rounded up, as a
    convolution with kernel 3, padding 1 and that stride leaves them. Where pictures are
    padded, each FeatureMap brings their true sizes along, and layers that look beyond
    their own pixel must not look into the padding: `models.layers` has such layers.
    Strides 4, 8, 16 and 32 must occur where all cascades are to be had.

    Example:
        backbone: BackboneModule = network.backbones[0]
        taps = backbone(FeatureMap(network.normalize(images)))
        assert backbone.tap_strides == (4, 8, 16, 32)
        assert [tap.values.shape[3] for tap in taps] == list(backbone.tap_channels)
    """

    @property
    def tap_strides(self) -> tuple[int, ...]:
        """At what share of the picture's size each tap is, 4 for a quarter."""
        ...

    @property
    def tap_channels(self) -> tuple[int, ...]:
        """Channels of each tap."""
        ...

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        """The taps of a batch of pictures."""
        ...


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A line of the table.

    Example:
        mean = BACKBONES["resnet50"].mean
        assert mean == (123.675, 116.28, 103.53)  # of ImageNet

    Attributes:
        build: called as build(channels, dtype=..., rngs=...) with the channels of the
            pictures, the dtype of the arithmetic and nnx.Rngs with a stream "params";
            parameters are float32.
        light_weight: the light-weight decoder that suits it.
        mean, std: of each channel in 0..255, what its published weights were trained
            with.
        family: its names in PyTorch, a key of weights.tables.BACKBONES; "": it has no
            published weights.
        form: what such names do not tell of it; see `weights.load`.
    """

    build: Callable[..., BackboneModule]
    light_weight: DecoderKind
    mean: tuple[float, ...]
    std: tuple[float, ...]
    family: str = ""
    form: str = ""


# Of ImageNet, as torchvision normalises.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# As the authors' MATLAB code normalises.
_MATLAB = ((128.0, 128.0, 128.0), (1.0, 1.0, 1.0))
# As EfficientNet-Lite's own code normalises.
_LITE = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))

BACKBONES: dict[str, Backbone] = {}
# variant: (backbone, decoder). Every backbone goes with either decoder.
VARIANTS: dict[str, tuple[Backbone, DecoderKind]] = {}


def add_backbone(name: str, backbone: Backbone) -> None:
    """Adds a line to the table: the variants `name` and light_`name`.

    Example:
        resnet50 = BACKBONES["resnet50"]
        on_grey = dataclasses.replace(resnet50, mean=(127.5,), std=(127.5,))
        add_backbone("grey_resnet50", on_grey)
        assert Architecture("light_grey_resnet50", num_classes=2).channels == 1

    Raises:
        ValueError: there is one of that name.
    """
    if name in BACKBONES:
        raise ValueError(f"there is a backbone {name!r} already: choose another name")
    BACKBONES[name] = backbone
    VARIANTS[name] = (backbone, FULL)
    VARIANTS[f"light_{name}"] = (backbone, backbone.light_weight)


def refuse_unknown_variant(variant: str) -> None:
    """Raises UserError where `VARIANTS` has none of that name."""
    if variant not in VARIANTS:
        raise unknown(f"variant={variant!r}", variant, VARIANTS)


for _depth in (18, 34, 50, 101, 152):
    add_backbone(
        f"resnet{_depth}",
        Backbone(partial(ResNet, _depth), LIGHT_WEIGHT, *_IMAGENET, family="resnet"),
    )
# ResNet-18 and 34 have no 1×1 convolution that could take the stride.
for _depth in (50, 101, 152):
    add_backbone(
        f"resnet{_depth}_caffe",
        Backbone(
            partial(ResNet, _depth, form="caffe"),
            LIGHT_WEIGHT,
            *_MATLAB,
            family="resnet",
            form="caffe",
        ),
    )
for _depth in (50, 101):
    add_backbone(
        f"resnet{_depth}d",
        Backbone(
            partial(ResNet, _depth, deep_stem=True),
            LIGHT_WEIGHT,
            *_IMAGENET,
            family="resnet_d",
        ),
    )
# Groups, and channels of each in the first stage.
for _depth, _groups, _width in ((50, 32, 4), (101, 32, 8), (101, 64, 4)):
    add_backbone(
        f"resnext{_depth}_{_groups}x{_width}d",
        Backbone(
            partial(ResNet, _depth, groups=_groups, group_width=_width),
            LIGHT_WEIGHT,
            *_IMAGENET,
            family="resnet",
        ),
    )
for _size in ("tiny", "small"):
    add_backbone(
        f"convnext_{_size}",
        Backbone(partial(ConvNeXt, _size), LIGHT_WEIGHT, *_IMAGENET, family="convnext"),
    )
add_backbone(
    "mobilenet_v2",
    Backbone(mobilenet_v2, LIGHT_WEIGHT_MOBILE, *_IMAGENET, family="mobilenet_v2"),
)
add_backbone(
    "mobilenet_v3_large",
    Backbone(
        mobilenet_v3_large,
        LIGHT_WEIGHT_MOBILE,
        *_IMAGENET,
        family="mobilenet_v3_large",
    ),
)
add_backbone(
    "efficientnet_b0",
    Backbone(
        efficientnet_b0, LIGHT_WEIGHT_MOBILE, *_IMAGENET, family="efficientnet_b0"
    ),
)
for _number in (0, 1, 2):
    add_backbone(
        f"efficientnet_lite{_number}",
        Backbone(
            partial(efficientnet_lite, _number),
            LIGHT_WEIGHT_MOBILE,
            *_LITE,
            family=f"efficientnet_lite{_number}",
        ),
    )

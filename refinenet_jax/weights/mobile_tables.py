"""Names of mobile backbones in PyTorch."""

from collections.abc import Iterator, Sequence

from refinenet_jax.weights.rules import Naming, Rule, conv_norm

# DrSleep/light-weight-refinenet, models/mobilenet.py.
MOBILENET_V2 = Naming(
    title="MobileNet-v2 of Light-Weight RefineNet",
    signature="layer1.0.weight",
    rules=(
        *conv_norm("layer1.0", "layer1.1", "stem"),
        *conv_norm(
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
    yield from conv_norm("features.0.0", "features.0.1", "stem")
    for index, path in _blocks((1, 2, 3, 4, 3, 3, 1)):
        block = f"features.{index + 1}.conv"
        # The first block has no expansion.
        expansions = 0 if index == 0 else 1
        if expansions:
            yield from conv_norm(f"{block}.0.0", f"{block}.0.1", f"{path}.layers.0")
        depthwise = f"{block}.{expansions}"
        yield from conv_norm(f"{depthwise}.0", f"{depthwise}.1", f"{path}.layers.1")
        projection = f"{block}.{expansions + 1}", f"{block}.{expansions + 2}"
        yield from conv_norm(*projection, f"{path}.layers.2")


TORCHVISION_MOBILENET_V2 = Naming(
    title="MobileNet-v2 of torchvision",
    signature="features.1.conv.0.0.weight",
    rules=tuple(_torchvision_mobilenet_v2()),
    left_out=(r"features\.18\..*", r"classifier\.1\.(weight|bias)"),
    identity_expansion=True,
)

TIMM_MOBILENET_V2 = Naming(
    title="MobileNet-v2 of timm",
    signature="conv_stem.weight",
    lacks="blocks.2.0.se.conv_reduce.weight",
    rules=(
        *conv_norm("conv_stem", "bn1", "stem"),
        *conv_norm("blocks.0.0.conv_dw", "blocks.0.0.bn1", "stages.0.0.layers.1"),
        *conv_norm("blocks.0.0.conv_pw", "blocks.0.0.bn2", "stages.0.0.layers.2"),
        *(
            rule
            for layer, (conv, norm) in enumerate(
                [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
            )
            for rule in conv_norm(
                f"blocks.{{more}}.{{block}}.{conv}",
                f"blocks.{{more}}.{{block}}.{norm}",
                f"stages.{{more}}.{{block}}.layers.{layer}",
            )
        ),
    ),
    left_out=(r"conv_head\.weight", r"bn2\..*", r"classifier\.(weight|bias)"),
    identity_expansion=True,
)


def _gates(torch: str, ours: str) -> tuple[Rule, Rule]:
    """Squeeze-and-excitation as timm names it."""
    return (
        Rule(f"{torch}.se.conv_reduce", f"{ours}.squeeze.reduce"),
        Rule(f"{torch}.se.conv_expand", f"{ours}.squeeze.expand"),
    )


def _torchvision_block(block: str, path: str, parts: Sequence[str]) -> Iterator[Rule]:
    """Its parts in their order: layers of ours by number, or the gate."""
    for index, part in enumerate(parts):
        place = f"{block}.{index}"
        if part == "squeeze":
            yield Rule(f"{place}.fc1", f"{path}.squeeze.reduce")
            yield Rule(f"{place}.fc2", f"{path}.squeeze.expand")
        else:
            yield from conv_norm(f"{place}.0", f"{place}.1", f"{path}.layers.{part}")


def _torchvision_mobilenet_v3_large() -> Iterator[Rule]:
    yield from conv_norm("features.0.0", "features.0.1", "stem")
    for index, path in _blocks((1, 2, 3, 4, 2, 3)):
        parts = ["0", "1", "2"] if index > 0 else ["0", "1"]
        if path[7] in "245":  # stages with gates
            parts.insert(2, "squeeze")
        yield from _torchvision_block(f"features.{index + 1}.block", path, parts)


TORCHVISION_MOBILENET_V3_LARGE = Naming(
    title="MobileNet-v3-Large of torchvision",
    signature="features.1.block.0.0.weight",
    rules=tuple(_torchvision_mobilenet_v3_large()),
    left_out=(r"features\.16\..*", r"classifier\.[03]\.(weight|bias)"),
)

# Of timm's networks of this kind, whether a block expands or not.
_TIMM_BLOCKS = (
    *conv_norm("conv_stem", "bn1", "stem"),
    *conv_norm("blocks.0.0.conv_dw", "blocks.0.0.bn1", "stages.0.0.layers.0"),
    *conv_norm("blocks.0.0.conv_pw", "blocks.0.0.bn2", "stages.0.0.layers.1"),
    *(
        rule
        for layer, (conv, norm) in enumerate(
            [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        )
        for rule in conv_norm(
            f"blocks.{{more}}.{{block}}.{conv}",
            f"blocks.{{more}}.{{block}}.{norm}",
            f"stages.{{more}}.{{block}}.layers.{layer}",
        )
    ),
    *_gates("blocks.{stage}.{block}", "stages.{stage}.{block}"),
)

TIMM_MOBILENET_V3_LARGE = Naming(
    title="MobileNet-v3-Large of timm",
    signature="blocks.2.0.se.conv_reduce.weight",
    lacks="blocks.0.0.se.conv_reduce.weight",
    rules=_TIMM_BLOCKS,
    left_out=(
        r"blocks\.6\.0\..*",
        r"conv_head\.(weight|bias)",
        r"classifier\.(weight|bias)",
    ),
    more_epsilon=1e-5 - 1e-3,
)


def _torchvision_efficientnet_b0() -> Iterator[Rule]:
    yield from conv_norm("features.0.0", "features.0.1", "stem")
    yield from _torchvision_block(
        "features.1.0.block", "stages.0.0", ["0", "squeeze", "1"]
    )
    for index, path in _blocks((1, 2, 2, 3, 3, 4, 1)):
        if index > 0:
            _, stage, block = path.split(".")
            theirs = f"features.{int(stage) + 1}.{block}.block"
            yield from _torchvision_block(theirs, path, ["0", "1", "squeeze", "2"])


TORCHVISION_EFFICIENTNET_B0 = Naming(
    title="EfficientNet-B0 of torchvision",
    signature="features.1.0.block.0.0.weight",
    rules=tuple(_torchvision_efficientnet_b0()),
    left_out=(r"features\.8\..*", r"classifier\.1\.(weight|bias)"),
)

TIMM_EFFICIENTNET_B0 = Naming(
    title="EfficientNet-B0 of timm",
    signature="blocks.0.0.se.conv_reduce.weight",
    rules=_TIMM_BLOCKS,
    left_out=(r"conv_head\.weight", r"bn2\..*", r"classifier\.(weight|bias)"),
)


def _efficientnet_lite(repeats: Sequence[int]) -> Iterator[Rule]:
    yield from conv_norm("_conv_stem", "_bn0", "stem")
    for index, path in _blocks(repeats):
        convs = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        if index > 0:  # the first block has no expansion
            convs.insert(0, ("_expand_conv", "_bn0"))
        for layer, (conv, norm) in enumerate(convs):
            block = f"_blocks.{index}"
            yield from conv_norm(
                f"{block}.{conv}", f"{block}.{norm}", f"{path}.layers.{layer}"
            )


# ml-illustrated/EfficientNet-Lite-PyTorch.
_LITE_HEAD = (r"_conv_head\.weight", r"_bn1\..*", r"_fc\.(weight|bias)")
EFFICIENTNET_LITE0 = Naming(
    title="EfficientNet-Lite0 in PyTorch",
    signature="_conv_stem.weight",
    lacks="_blocks.20._project_conv.weight",
    rules=tuple(_efficientnet_lite((1, 2, 2, 3, 3, 4, 1))),
    left_out=_LITE_HEAD,
)
# They differ in the widths alone.
EFFICIENTNET_LITE1_OR_2 = Naming(
    title="EfficientNet-Lite1 or 2 in PyTorch",
    signature="_blocks.20._project_conv.weight",
    rules=tuple(_efficientnet_lite((1, 3, 3, 4, 4, 5, 1))),
    left_out=_LITE_HEAD,
)

"""Names of ConvNeXt in PyTorch."""

from collections.abc import Iterator

from refinenet_jax.weights.rules import Naming, Rule

_BLOCK = "stages.{stage}.{block}"


def _timm() -> Iterator[Rule]:
    block = "stages.{stage}.blocks.{block}"
    yield Rule("stem.0", "patches.0.conv")
    yield Rule("stem.1", "patches.0.layer_norm", "norm")
    yield Rule("stages.{more}.downsample.0", "patches.{more}.layer_norm", "norm")
    yield Rule("stages.{more}.downsample.1", "patches.{more}.conv")
    yield Rule(f"{block}.conv_dw", f"{_BLOCK}.depthwise")
    yield Rule(f"{block}.norm", f"{_BLOCK}.layer_norm", "norm")
    yield Rule(f"{block}.mlp.fc1", f"{_BLOCK}.expand", "linear")
    yield Rule(f"{block}.mlp.fc2", f"{_BLOCK}.project", "linear")
    yield Rule(block, _BLOCK, "gamma")


TIMM_CONVNEXT = Naming(
    title="ConvNeXt of timm",
    signature="stages.0.blocks.0.conv_dw.weight",
    rules=tuple(_timm()),
    left_out=(r"head\.(norm|fc)\.(weight|bias)",),
)


def _torchvision() -> Iterator[Rule]:
    yield Rule("features.0.0", "patches.0.conv")
    yield Rule("features.0.1", "patches.0.layer_norm", "norm")
    for stage in range(4):
        if stage > 0:
            patches = f"features.{2 * stage}"
            yield Rule(f"{patches}.0", f"patches.{stage}.layer_norm", "norm")
            yield Rule(f"{patches}.1", f"patches.{stage}.conv")
        block = f"features.{2 * stage + 1}.{{block}}"
        ours = f"stages.{stage}.{{block}}"
        yield Rule(f"{block}.block.0", f"{ours}.depthwise")
        yield Rule(f"{block}.block.2", f"{ours}.layer_norm", "norm")
        yield Rule(f"{block}.block.3", f"{ours}.expand", "linear")
        yield Rule(f"{block}.block.5", f"{ours}.project", "linear")
        yield Rule(block, ours, "layer_scale")


TORCHVISION_CONVNEXT = Naming(
    title="ConvNeXt of torchvision",
    signature="features.1.0.block.0.weight",
    rules=tuple(_torchvision()),
    left_out=(r"classifier\.[02]\.(weight|bias)",),
)


def _authors() -> Iterator[Rule]:
    yield Rule("downsample_layers.0.0", "patches.0.conv")
    yield Rule("downsample_layers.0.1", "patches.0.layer_norm", "norm")
    yield Rule("downsample_layers.{more}.0", "patches.{more}.layer_norm", "norm")
    yield Rule("downsample_layers.{more}.1", "patches.{more}.conv")
    yield Rule(f"{_BLOCK}.dwconv", f"{_BLOCK}.depthwise")
    yield Rule(f"{_BLOCK}.norm", f"{_BLOCK}.layer_norm", "norm")
    yield Rule(f"{_BLOCK}.pwconv1", f"{_BLOCK}.expand", "linear")
    yield Rule(f"{_BLOCK}.pwconv2", f"{_BLOCK}.project", "linear")
    yield Rule(_BLOCK, _BLOCK, "gamma")


# facebookresearch/ConvNeXt.
AUTHORS_CONVNEXT = Naming(
    title="ConvNeXt of its authors",
    signature="stages.0.0.dwconv.weight",
    rules=tuple(_authors()),
    left_out=(r"(norm|head)\.(weight|bias)",),
)

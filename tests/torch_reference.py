"""The networks in PyTorch, with the weight names of the PyTorch ports.

Written from the papers and the names alone, as plainly as torch.nn allows, to check our
networks against. `copy_to_network` brings the weights over.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

REPEATS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1
) -> nn.Conv2d:
    """Convolution without bias that keeps the size but for the stride."""
    return nn.Conv2d(
        in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False
    )


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock (two kernel sizes) or Bottleneck (three)."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        kernel_sizes: Sequence[int],
        stride: int,
    ):
        super().__init__()
        self.depth = len(widths)
        first_3x3 = kernel_sizes.index(3)
        channels = in_channels
        for i, (width, size) in enumerate(zip(widths, kernel_sizes, strict=True)):
            layer_stride = stride if i == first_3x3 else 1
            self.add_module(f"conv{i + 1}", conv(channels, width, size, layer_stride))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(width))
            channels = width
        self.downsample = (
            nn.Sequential(
                conv(in_channels, channels, 1, stride), nn.BatchNorm2d(channels)
            )
            if stride > 1 or in_channels != channels
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            if i < self.depth:
                x = F.relu(x)
        return F.relu(x + shortcut)


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier."""

    def __init__(self, depth: int):
        super().__init__()
        self.conv1 = conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        self.tap_channels = []
        for i, repeats in enumerate(REPEATS[depth]):
            width = 64 * 2**i
            widths, kernel_sizes = (
                ([width, width], [3, 3])
                if depth == 18
                else ([width, width, 4 * width], [1, 3, 1])
            )
            blocks = []
            for j in range(repeats):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(ResidualBlock(channels, widths, kernel_sizes, stride))
                channels = widths[-1]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.tap_channels.append(channels)

    def taps(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of the four stages, the finest first."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.max_pool2d(x, 3, 2, 1)
        taps = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            taps.append(x)
        return taps


class ResidualConvUnits(nn.Module):
    def __init__(self, channels: int, count: int):
        super().__init__()
        self.count = count
        for i in range(1, count + 1):
            self.add_module(f"{i}_conv", nn.Conv2d(channels, channels, 3, 1, 1))
            self.add_module(f"{i}_conv_relu_varout_dimred", conv(channels, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"{i}_conv")(F.relu(x))
            x = x + self.get_submodule(f"{i}_conv_relu_varout_dimred")(F.relu(y))
        return x


class ChainedPooling(nn.Module):
    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"{i}_outvar_dimred", conv(channels, channels, kernel_size))
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        path = x
        for i in range(1, 5):
            path = self.get_submodule(f"{i}_outvar_dimred")(self.pool(path))
            x = x + path
        return x


class RefineNet(ResNet):
    """RefineNet, or the light-weight one: 1×1 convolutions, no residual units.

    The ports count the paths from the coarsest, 1, to the finest, 4. image: [B,3,H,W] →
    logits [B,num_classes,H/4,W/4].
    """

    def __init__(self, depth: int, num_classes: int, *, light_weight: bool):
        super().__init__(depth)
        self.light_weight = light_weight
        size = 1 if light_weight else 3
        widths = {1: 512, 2: 256, 3: 256, 4: 256}
        for i, width in widths.items():
            modules = {
                f"p_ims1d2_outl{i}_dimred": conv(self.tap_channels[4 - i], width, size),
                f"mflow_conv_g{i}_pool": nn.Sequential(ChainedPooling(width, size)),
            }
            if not light_weight:
                modules[f"adapt_stage{i}_b"] = nn.Sequential(
                    ResidualConvUnits(width, 2)
                )
                modules[f"mflow_conv_g{i}_b"] = nn.Sequential(
                    ResidualConvUnits(width, 3)
                )
            if i > 1:
                modules[f"adapt_stage{i}_b2_joint_varout_dimred"] = conv(
                    width, width, size
                )
            if i < 4:
                modules[f"mflow_conv_g{i}_b3_joint_varout_dimred"] = conv(
                    width, widths[i + 1], size
                )
            for name, module in modules.items():
                self.add_module(name, module)
        self.clf_conv = nn.Conv2d(256, num_classes, 3, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.refine(self.taps(image))

    def refine(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """The taps of a ResNet, the finest first → logits."""
        x = None
        for i, tap in enumerate(reversed(taps), start=1):
            x = self._path(i, tap, x)
        return self.clf_conv(x)

    def _path(
        self, i: int, tap: torch.Tensor, coarser: torch.Tensor | None
    ) -> torch.Tensor:
        part = self.get_submodule
        x = part(f"p_ims1d2_outl{i}_dimred")(tap)
        if not self.light_weight:
            x = part(f"adapt_stage{i}_b")(x)
        if coarser is not None:
            x = part(f"adapt_stage{i}_b2_joint_varout_dimred")(x)
            coarser = part(f"mflow_conv_g{i - 1}_b3_joint_varout_dimred")(coarser)
            x = x + F.interpolate(
                coarser, x.shape[2:], mode="bilinear", align_corners=True
            )
        x = part(f"mflow_conv_g{i}_pool")(F.relu(x))
        return x if self.light_weight else part(f"mflow_conv_g{i}_b")(x)


def reference(variant: str, num_classes: int) -> RefineNet:
    """The network of one of our variants, on the meta device: shapes without values."""
    depth = int(variant.rpartition("resnet")[2])
    with torch.device("meta"):
        return RefineNet(depth, num_classes, light_weight=variant.startswith("light_"))


def pictures(count: int, height: int, width: int, *, seed: int) -> torch.Tensor:
    """Smooth random pictures [count,3,height,width]; neighbouring pixels are alike.

    On white noise every pixel of a deep layer would look the same.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 7, 9, generator=generator)
    return 1.5 * F.interpolate(coarse, (height, width), mode="bilinear")


@torch.no_grad()
def fill(network: RefineNet, seed: int) -> None:
    """Random weights and statistics with which every part of the network counts.

    On random pictures each convolution is scaled to an output of standard deviation
    one, and each BatchNorm takes the statistics that it sees. So no branch drowns
    another, and the logits are of order one at any depth.
    """
    generator = torch.Generator().manual_seed(seed)
    network.to_empty(device="cpu").eval()
    hooks = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0, fan_in**-0.5, generator=generator)
            if part.bias is not None:
                part.bias.normal_(0, 0.3, generator=generator)
            hooks.append(part.register_forward_hook(_scale_to_unit_output))
        elif isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.5, 1.5, generator=generator)
            part.bias.normal_(0, 0.3, generator=generator)
            hooks.append(part.register_forward_pre_hook(_take_statistics))
    for part in network.modules():
        if isinstance(part, ResidualBlock):
            # Unlike a trained network, a random one whose residuals are as large as
            # their shortcuts multiplies rounding errors a hundredfold in 50 blocks.
            part.get_submodule(f"bn{part.depth}").weight.mul_(0.2)
    network(pictures(2, 97, 131, seed=seed))
    for hook in hooks:
        hook.remove()


def _scale_to_unit_output(
    part: nn.Conv2d, _: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor:
    scale = 1 / output.std()
    for weight in part.parameters():
        weight.mul_(scale)
    return output * scale


def _take_statistics(part: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
    (x,) = inputs
    part.running_mean.copy_(x.mean((0, 2, 3)))
    part.running_var.copy_(x.var((0, 2, 3)))


# A leaf of a torch module: (its name in ours, what is done to the array).
Leaves = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


def _unchanged(array: np.ndarray) -> np.ndarray:
    return array


def _oihw_to_hwio(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


CONV: Leaves = {"weight": ("kernel", _oihw_to_hwio), "bias": ("bias", _unchanged)}
NORM: Leaves = {
    "weight": ("scale", _unchanged),
    "bias": ("bias", _unchanged),
    "running_mean": ("mean", _unchanged),
    "running_var": ("var", _unchanged),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where the weights of some torch modules go.

    Attributes:
        pattern: matches the whole name of the torch module; its groups are numbers.
        leaves: what a module of this kind holds.
        path: of our module, from the numbers of the pattern.
    """

    pattern: str
    leaves: Leaves
    path: Callable[..., str]


# Torch counts stages, layers, units and pools from 1; and paths from the coarsest, 1, to
# the finest, 4, where our blocks go from the finest, 0, to the coarsest, 3.
RULES = (
    Rule(r"conv1", CONV, lambda: "backbone.stem.conv"),
    Rule(r"bn1", NORM, lambda: "backbone.stem.norm"),
    Rule(
        r"layer(\d)\.(\d+)\.conv(\d)",
        CONV,
        lambda stage, block, layer: (
            f"backbone.stages.{stage - 1}.{block}.layers.{layer - 1}.conv"
        ),
    ),
    Rule(
        r"layer(\d)\.(\d+)\.bn(\d)",
        NORM,
        lambda stage, block, layer: (
            f"backbone.stages.{stage - 1}.{block}.layers.{layer - 1}.norm"
        ),
    ),
    Rule(
        r"layer(\d)\.(\d+)\.downsample\.0",
        CONV,
        lambda stage, block: f"backbone.stages.{stage - 1}.{block}.shortcut.conv",
    ),
    Rule(
        r"layer(\d)\.(\d+)\.downsample\.1",
        NORM,
        lambda stage, block: f"backbone.stages.{stage - 1}.{block}.shortcut.norm",
    ),
    Rule(
        r"p_ims1d2_outl(\d)_dimred",
        CONV,
        lambda path: f"decoder.blocks.{4 - path}.reduction",
    ),
    Rule(
        r"adapt_stage(\d)_b\.0\.(\d)_conv",
        CONV,
        lambda path, unit: f"decoder.blocks.{4 - path}.adaptation.{unit - 1}.conv1",
    ),
    Rule(
        r"adapt_stage(\d)_b\.0\.(\d)_conv_relu_varout_dimred",
        CONV,
        lambda path, unit: f"decoder.blocks.{4 - path}.adaptation.{unit - 1}.conv2",
    ),
    Rule(
        r"adapt_stage(\d)_b2_joint_varout_dimred",
        CONV,
        lambda path: f"decoder.blocks.{4 - path}.fusion.convs.0",
    ),
    Rule(
        # Named after the path it comes from; it belongs to the fusion of the next.
        r"mflow_conv_g(\d)_b3_joint_varout_dimred",
        CONV,
        lambda path: f"decoder.blocks.{4 - (path + 1)}.fusion.convs.1",
    ),
    Rule(
        r"mflow_conv_g(\d)_pool\.0\.(\d)_outvar_dimred",
        CONV,
        lambda path, pool: f"decoder.blocks.{4 - path}.pooling.convs.{pool - 1}",
    ),
    Rule(
        r"mflow_conv_g(\d)_b\.0\.(\d)_conv",
        CONV,
        lambda path, unit: f"decoder.blocks.{4 - path}.output.{unit - 1}.conv1",
    ),
    Rule(
        r"mflow_conv_g(\d)_b\.0\.(\d)_conv_relu_varout_dimred",
        CONV,
        lambda path, unit: f"decoder.blocks.{4 - path}.output.{unit - 1}.conv2",
    ),
    Rule(r"clf_conv", CONV, lambda: "decoder.classifier"),
)

# Counts training steps where a momentum is not given; no network computes with it.
UNUSED_LEAF = "num_batches_tracked"


def destinations(key: str) -> list[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Every (path in our network, transform) that RULES give a torch key."""
    name, _, leaf = key.rpartition(".")
    found = []
    for rule in RULES:
        match = re.fullmatch(rule.pattern, name)
        if match and leaf in rule.leaves:
            our_leaf, transform = rule.leaves[leaf]
            path = rule.path(*map(int, match.groups()))
            found.append((f"{path}.{our_leaf}", transform))
    return found


def copy_to_network(
    state_dict: Mapping[str, torch.Tensor], network: nnx.Module
) -> None:
    """Fills every leaf of our network from a torch state_dict, each key used once.

    Args:
        state_dict: the whole of a torch network.
        network: may be abstract, from nnx.eval_shape; it is changed in place.

    Raises:
        ValueError: lists every key without a place or with several, every leaf without
            a key or with several, and every shape that differs.
    """
    leaves = {
        ".".join(map(str, path)): (path, leaf)
        for path, leaf in nnx.to_flat_state(nnx.state(network))
    }
    filled: dict[str, nnx.Variable] = {}
    faults = []
    for key, tensor in state_dict.items():
        if key.endswith(UNUSED_LEAF):
            continue
        places = destinations(key)
        if len(places) != 1:
            faults.append(f"{key}: {len(places)} rules match, not one")
            continue
        name, transform = places[0]
        array = transform(tensor.detach().numpy())
        if name not in leaves:
            faults.append(f"{key}: the network has no {name}")
            continue
        leaf = leaves[name][1]
        if name in filled:
            faults.append(f"{key}: {name} is filled already")
        elif array.shape != leaf.shape:
            faults.append(f"{key}: {array.shape}, but {name} is {leaf.shape}")
        # A copy: on CPU, JAX would otherwise share memory with the torch tensor.
        filled[name] = leaf.replace(jnp.array(array, leaf.dtype, copy=True))
    faults += [f"{name}: no key fills it" for name in leaves if name not in filled]
    if faults:
        raise ValueError("\n".join(["the weights do not fit the network:", *faults]))
    nnx.update(
        network,
        nnx.from_flat_state((leaves[name][0], leaf) for name, leaf in filled.items()),
    )

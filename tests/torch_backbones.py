"""The backbones in PyTorch, with the weight names of torchvision and of the ports.

Written from the papers, the authors' code and the names alone, as plainly as torch.nn
allows, to check our networks against.
"""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

REPEATS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def conv(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Convolution without bias that keeps the size but for the stride."""
    return nn.Conv2d(
        in_channels,
        channels,
        kernel_size,
        stride,
        kernel_size // 2,
        groups=groups,
        bias=False,
    )


class SameConv(nn.Conv2d):
    """Convolution without bias and with the borders of TensorFlow's "SAME".

    The output has ceil(size / stride) pixels; an odd number of zeros has its larger
    half at the bottom and on the right.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__(
            in_channels, channels, kernel_size, stride, groups=groups, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        borders = []
        for axis in (1, 0):  # F.pad begins with the last axis
            size, stride = x.shape[2 + axis], self.stride[axis]
            outputs = -(-size // stride)
            zeros = max((outputs - 1) * stride + self.kernel_size[axis] - size, 0)
            borders += [zeros // 2, zeros - zeros // 2]
        return super().forward(F.pad(x, borders))


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock (two kernel sizes) or Bottleneck (three).

    strided_layer: which convolution has the stride, counted from 1.
    groups: of the 3×3 of three.
    pools: timm's shortcut of a ResNet-D, whose first part is the pool.
    """

    adds_input = True

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        kernel_sizes: Sequence[int],
        stride: int,
        strided_layer: int,
        *,
        groups: int = 1,
        pools: bool = False,
    ):
        super().__init__()
        self.depth = len(widths)
        channels = in_channels
        for i, (width, size) in enumerate(zip(widths, kernel_sizes, strict=True), 1):
            layer_stride = stride if i == strided_layer else 1
            shares = groups if size == 3 else 1
            self.add_module(
                f"conv{i}", conv(channels, width, size, layer_stride, shares)
            )
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            channels = width
        parts: list[nn.Module] = []
        if pools:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
            parts = [pool if stride > 1 else nn.Identity()]
        parts += [
            conv(in_channels, channels, 1, 1 if pools else stride),
            nn.BatchNorm2d(channels),
        ]
        projects = stride > 1 or in_channels != channels
        self.downsample = nn.Sequential(*parts) if projects else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            if i < self.depth:
                x = F.relu(x)
        return F.relu(x + shortcut)

    def last_norm(self) -> nn.BatchNorm2d:
        return self.get_submodule(f"bn{self.depth}")


class ResNet(nn.Module):
    """torchvision's ResNet; without its classifier, unless it is wanted.

    caffe: the first 1×1 convolution of a bottleneck has the stride, not the 3×3.
    deep: it is timm's ResNet-D.
    groups, group_width: of a ResNeXt; channels of a group in the first stage.
    """

    tap_strides = (4, 8, 16, 32)

    def __init__(
        self,
        depth: int,
        *,
        caffe: bool = False,
        deep: bool = False,
        groups: int = 1,
        group_width: int = 64,
        with_head: bool = False,
    ):
        super().__init__()
        self.conv1: nn.Module = conv(3, 64, 7, 2)
        if deep:
            self.conv1 = nn.Sequential(
                conv(3, 32, 3, 2),
                nn.BatchNorm2d(32),
                nn.ReLU(),
                conv(32, 32, 3),
                nn.BatchNorm2d(32),
                nn.ReLU(),
                conv(32, 64, 3),
            )
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        self.tap_channels = []
        for i, repeats in enumerate(REPEATS[depth]):
            width = 64 * 2**i
            if depth < 50:
                widths, kernel_sizes, strided = [width, width], [3, 3], 1
            else:
                inner = group_width * 2**i * groups
                widths, kernel_sizes = [inner, inner, 4 * width], [1, 3, 1]
                strided = 1 if caffe else 2
            blocks = []
            for j in range(repeats):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    ResidualBlock(
                        channels,
                        widths,
                        kernel_sizes,
                        stride,
                        strided,
                        groups=groups,
                        pools=deep,
                    )
                )
                channels = widths[-1]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.tap_channels.append(channels)
        if with_head:
            self.fc = nn.Linear(channels, 1000)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of the four stages, the finest first."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.max_pool2d(x, 3, 2, 1)
        taps = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            taps.append(x)
        return taps


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of [B,C,H,W]."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Patches(nn.Conv2d):
    """Squares that do not overlap; zeros complete the last ones."""

    def __init__(self, in_channels: int, channels: int, edge: int):
        super().__init__(in_channels, channels, edge, edge)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (edge, _), (height, width) = self.stride, x.shape[2:]
        return super().forward(F.pad(x, (0, -width % edge, 0, -height % edge)))


class ConvNeXtBlock(nn.Module):
    """timm's."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, 1, 3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(channels, 4 * channels),
                "fc2": nn.Linear(4 * channels, channels),
            }
        )
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        y = self.gamma * self.mlp["fc2"](F.gelu(self.mlp["fc1"](y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """timm's ConvNeXt without its classifier, but for pictures of any size."""

    tap_strides = (4, 8, 16, 32)
    tap_channels = (96, 192, 384, 768)

    def __init__(self, depths: Sequence[int]):
        super().__init__()
        self.stem = nn.Sequential(Patches(3, 96, 4), LayerNorm2d(96))
        stages = []
        before = 96
        for depth, channels in zip(depths, self.tap_channels, strict=True):
            stage = nn.Module()
            stage.downsample = nn.Sequential()
            if before != channels:
                stage.downsample = nn.Sequential(
                    LayerNorm2d(before), Patches(before, channels, 2)
                )
            blocks = [ConvNeXtBlock(channels) for _ in range(depth)]
            stage.blocks = nn.Sequential(*blocks)
            stages.append(stage)
            before = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of the four stages, the finest first."""
        x = self.stem(image)
        taps = []
        for stage in self.stages:
            x = stage.blocks(stage.downsample(x))
            taps.append(x)
        return taps


# Expansion, channels, blocks, stride of the first: Sandler et al. 2018, table 2.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Of every stage but the first.
MOBILE_STRIDES = (4, 8, 16, 16, 32, 32)


def conv_norm(
    in_channels: int,
    channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    activated: bool = True,
) -> nn.Sequential:
    """Convolution and BatchNorm, and ReLU6 unless the layer is linear."""
    layers = [
        conv(in_channels, channels, kernel_size, stride, groups),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if activated else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Layers that stand below one name; their input is added where it fits."""

    def __init__(self, name: str, layers: Sequence[nn.Module], *, adds_input: bool):
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))
        self.name = name
        self.adds_input = adds_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.get_submodule(self.name)(x)
        return x + residual if self.adds_input else residual

    def last_norm(self) -> nn.BatchNorm2d:
        return [part for part in self.modules() if isinstance(part, nn.BatchNorm2d)][-1]


def port_block(
    in_channels: int, channels: int, stride: int, expansion: int
) -> InvertedResidual:
    """Of the port: the first block expands too, to as many channels as it has."""
    width = expansion * in_channels
    layers = [
        conv_norm(in_channels, width),
        conv_norm(width, width, 3, stride, width),
        conv_norm(width, channels, activated=False),
    ]
    adds_input = stride == 1 and in_channels == channels
    return InvertedResidual("output", layers, adds_input=adds_input)


def torchvision_block(
    in_channels: int, channels: int, stride: int, expansion: int
) -> InvertedResidual:
    """Of torchvision, where an expansion by 1 is left out."""
    width = expansion * in_channels
    layers = [
        *([conv_norm(in_channels, width)] if expansion > 1 else []),
        conv_norm(width, width, 3, stride, width),
        conv(width, channels, 1),
        nn.BatchNorm2d(channels),
    ]
    adds_input = stride == 1 and in_channels == channels
    return InvertedResidual("conv", layers, adds_input=adds_input)


def mobile_stages(
    block: Callable[[int, int, int, int], InvertedResidual],
) -> list[list[InvertedResidual]]:
    """The blocks of MobileNet-v2 by stage."""
    channels = 32
    stages = []
    for expansion, width, repeats, stride in MOBILENET_V2:
        stages.append([])
        for position in range(repeats):
            block_stride = stride if position == 0 else 1
            stages[-1].append(block(channels, width, block_stride, expansion))
            channels = width
    return stages


class MobileNetV2(nn.Module):
    """The MobileNet-v2 of light-weight RefineNet."""

    tap_strides = MOBILE_STRIDES
    tap_channels = (24, 32, 64, 96, 160, 320)

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = conv_norm(3, 32, 3, 2)
        for i, blocks in enumerate(mobile_stages(port_block), start=2):
            self.add_module(f"layer{i}", nn.Sequential(*blocks))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of layers 3 to 8, the finest first."""
        x = self.layer1(image)
        outputs = []
        for i in range(2, 9):
            x = self.get_submodule(f"layer{i}")(x)
            outputs.append(x)
        return outputs[1:]


class TorchvisionMobileNetV2(nn.Module):
    """torchvision's MobileNet-v2 with its classifier for ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        stages = mobile_stages(torchvision_block)
        self.stage_sizes = [len(blocks) for blocks in stages]
        self.features = nn.Sequential(
            conv_norm(3, 32, 3, 2),
            *(block for blocks in stages for block in blocks),
            conv_norm(320, 1280),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean((2, 3)))

    def taps(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of all stages but the first, the finest first."""
        ends = np.cumsum(self.stage_sizes)
        x = image
        outputs = []
        for part in self.features:
            x = part(x)
            outputs.append(x)
        return [outputs[end] for end in ends[1:]]


# Expansion, channels, blocks, stride of the first, kernel size: EfficientNet-B0.
EFFICIENTNET_B0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
# By how much wider and deeper, and where the pictures of ImageNet are how large:
# efficientnet_lite_builder.py of tensorflow/tpu.
LITE = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}


def lite_stages(number: int) -> list[tuple[int, int, int, int, int]]:
    """As `EFFICIENTNET_B0`; depth does not touch the first and last stage."""
    wider, deeper, _ = LITE[number]
    stages = []
    for expansion, channels, repeats, stride, size in EFFICIENTNET_B0:
        ends = channels in (16, 320)
        width = by_eight(channels * wider)
        count = repeats if ends else math.ceil(repeats * deeper)
        stages.append((expansion, width, count, stride, size))
    return stages


def by_eight(channels: float) -> int:
    """The nearest multiple of eight, unless that takes away more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def lite_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm with TensorFlow's momentum and epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class LiteBlock(nn.Module):
    """EfficientNet's MBConv without squeeze-and-excitation."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        expansion: int,
        kernel_size: int,
    ):
        super().__init__()
        width = expansion * in_channels
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SameConv(in_channels, width, 1)
            self._bn0 = lite_norm(width)
        self._depthwise_conv = SameConv(width, width, kernel_size, stride, width)
        self._bn1 = lite_norm(width)
        self._project_conv = SameConv(width, channels, 1)
        self._bn2 = lite_norm(channels)
        self._relu6 = nn.ReLU6()
        self.adds_input = stride == 1 and in_channels == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self.expands:
            y = self._relu6(self._bn0(self._expand_conv(y)))
        y = self._relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds_input else y

    def last_norm(self) -> nn.BatchNorm2d:
        return self._bn2


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0, 1 or 2; without its classifier, unless it is wanted."""

    tap_strides = MOBILE_STRIDES

    def __init__(self, number: int, *, with_head: bool = False):
        super().__init__()
        stages = lite_stages(number)
        self.tap_channels = tuple(stage[1] for stage in stages[1:])
        self.ends = (np.cumsum([stage[2] for stage in stages]) - 1).tolist()
        self._conv_stem = SameConv(3, 32, 3, 2)
        self._bn0 = lite_norm(32)
        self._relu6 = nn.ReLU6()
        self._blocks = nn.ModuleList()
        channels = 32
        for expansion, width, repeats, stride, kernel_size in stages:
            for position in range(repeats):
                block_stride = stride if position == 0 else 1
                self._blocks.append(
                    LiteBlock(channels, width, block_stride, expansion, kernel_size)
                )
                channels = width
        if with_head:
            self._conv_head = SameConv(channels, 1280, 1)
            self._bn1 = lite_norm(1280)
            self._fc = nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of all stages but the first, the finest first."""
        x = self._relu6(self._bn0(self._conv_stem(image)))
        outputs = []
        for block in self._blocks:
            x = block(x)
            outputs.append(x)
        return [outputs[end] for end in self.ends[1:]]

    def classify(self, image: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] → scores of the 1000 classes of ImageNet, [B,1000]."""
        x = self._relu6(self._bn1(self._conv_head(self(image)[-1])))
        return self._fc(x.mean((2, 3)))


class Gate(nn.Module):
    """Squeeze-and-excitation under torchvision's names."""

    def __init__(
        self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module
    ):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.activation(self.fc1(mean))))


def activated(
    in_channels: int,
    channels: int,
    size: int,
    stride: int,
    groups: int,
    epsilon: float,
    activation: nn.Module | None,
) -> nn.Sequential:
    """Convolution, BatchNorm and, unless it is None, what follows them."""
    layers = [
        conv(in_channels, channels, size, stride, groups),
        nn.BatchNorm2d(channels, eps=epsilon),
    ]
    return nn.Sequential(*layers, *([activation] if activation else []))


def gated_block(
    in_channels: int,
    width: int,
    channels: int,
    size: int,
    stride: int,
    gate: Gate | None,
    activation: nn.Module,
    epsilon: float,
) -> InvertedResidual:
    """torchvision's block of MobileNet-v3 and EfficientNet."""
    parts = []
    if width != in_channels:
        parts.append(activated(in_channels, width, 1, 1, 1, epsilon, activation))
    parts.append(activated(width, width, size, stride, width, epsilon, activation))
    parts += [gate] if gate else []
    parts.append(activated(width, channels, 1, 1, 1, epsilon, None))
    adds_input = stride == 1 and in_channels == channels
    return InvertedResidual("block", parts, adds_input=adds_input)


# Kernel size, channels inside, channels, gate, hard swish, stride: Howard et al. 2019,
# table 1.
MOBILENET_V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class MobileNetV3(nn.Module):
    """torchvision's MobileNet-v3-Large; without its classifier, unless it is wanted."""

    tap_strides = (4, 8, 16, 16, 32)
    tap_channels = (24, 40, 80, 112, 160)

    def __init__(self, *, with_head: bool = False):
        super().__init__()
        parts = [activated(3, 16, 3, 2, 1, 1e-3, nn.Hardswish())]
        before = 16
        for size, width, channels, has_gate, hard, stride in MOBILENET_V3_LARGE:
            gate = None
            if has_gate:
                gate = Gate(width, by_eight(width // 4), nn.ReLU(), nn.Hardsigmoid())
            activation = nn.Hardswish() if hard else nn.ReLU()
            parts.append(
                gated_block(
                    before, width, channels, size, stride, gate, activation, 1e-3
                )
            )
            before = channels
        if with_head:
            parts.append(activated(160, 960, 1, 1, 1, 1e-3, nn.Hardswish()))
            self.classifier = nn.Sequential(
                nn.Linear(960, 1280),
                nn.Hardswish(),
                nn.Dropout(),
                nn.Linear(1280, 1000),
            )
        self.features = nn.Sequential(*parts)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the last outputs of each width but the first, the finest first."""
        outputs = []
        x = image
        for part in self.features:
            x = part(x)
            outputs.append(x)
        return [outputs[end] for end in (3, 6, 10, 12, 15)]


class EfficientNetB0(nn.Module):
    """torchvision's EfficientNet-B0; without its classifier, unless it is wanted."""

    tap_strides = MOBILE_STRIDES
    tap_channels = (24, 40, 80, 112, 192, 320)

    def __init__(self, *, with_head: bool = False):
        super().__init__()
        parts: list[nn.Module] = [activated(3, 32, 3, 2, 1, 1e-5, nn.SiLU())]
        before = 32
        for expansion, channels, repeats, stride, size in EFFICIENTNET_B0:
            blocks = []
            for position in range(repeats):
                width = before * expansion
                gate = Gate(width, before // 4, nn.SiLU(), nn.Sigmoid())
                blocks.append(
                    gated_block(
                        before,
                        width,
                        channels,
                        size,
                        stride if position == 0 else 1,
                        gate,
                        nn.SiLU(),
                        1e-5,
                    )
                )
                before = channels
            parts.append(nn.Sequential(*blocks))
        if with_head:
            parts.append(activated(320, 1280, 1, 1, 1, 1e-5, nn.SiLU()))
            self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, 1000))
        self.features = nn.Sequential(*parts)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the outputs of all stages but the first, the finest first."""
        outputs = []
        x = image
        for part in self.features[:8]:
            x = part(x)
            outputs.append(x)
        return outputs[2:]


def backbone(variant: str) -> nn.Module:
    """The backbone of one of our variants."""
    name = variant.removeprefix("light_")
    if name == "mobilenet_v2":
        return MobileNetV2()
    if name == "mobilenet_v3_large":
        return MobileNetV3()
    if name == "efficientnet_b0":
        return EfficientNetB0()
    if name.startswith("efficientnet_lite"):
        return EfficientNetLite(int(name[-1]))
    if name.startswith("convnext"):
        return ConvNeXt((3, 3, 27 if name.endswith("small") else 9, 3))
    if match := re.fullmatch(r"resnext(\d+)_(\d+)x(\d+)d", name):
        depth, groups, width = map(int, match.groups())
        return ResNet(depth, groups=groups, group_width=width)
    match = re.fullmatch(r"resnet(\d+)(d?)(_caffe)?", name)
    return ResNet(int(match[1]), caffe=bool(match[3]), deep=bool(match[2]))

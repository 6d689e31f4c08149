"""The networks in PyTorch, with the weight names of the PyTorch ports.

Written from the papers, the authors' code and the names alone, as plainly as torch.nn
allows, to check our networks against. `copy_to_network` brings the weights over.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from refinenet_jax import models
from refinenet_jax.models import Architecture, in_inference
from tests.architectures import abstract_network, architecture, set_weights
from tests.torch_backbones import backbone as backbone_of
from tests.torch_backbones import conv

# On cores that others use too, threads that wait for each other take ten times as long
# as one.
torch.set_num_threads(1)


def keys_cubic(distance: float) -> float:
    """Keys 1981 with a = -1/2."""
    a, x = -0.5, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


@functools.cache
def bicubic_matrix(old: int, new: int) -> torch.Tensor:
    """Share of each old pixel in each new one, [new,old].

    Pixels are squares whose centres lie at half their side. A kernel centre outside of
    the old centres moves to the nearest; shares outside the picture go to the others in
    proportion. The kernel widens as the picture shrinks.
    """
    step = old / new
    width = max(step, 1)
    rows = []
    for i in range(new):
        centre = min(max((i + 0.5) * step - 0.5, 0), old - 1)
        shares = np.array([keys_cubic((centre - j) / width) for j in range(old)])
        rows.append(shares / shares.sum())
    return torch.tensor(np.array(rows), dtype=torch.float32)


def bicubic(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """[B,C,h,w] → [B,C,*size]."""
    rows, columns = (
        bicubic_matrix(old, new) for old, new in zip(x.shape[2:], size, strict=True)
    )
    return rows @ x @ columns.T


def fusion_resize(
    x: torch.Tensor, like: torch.Tensor, description: Architecture
) -> torch.Tensor:
    """[B,C,h,w] → [B,C,H,W], the size of `like`."""
    size = like.shape[2:]
    if x.shape[2:] == size:
        return x
    if description.fusion_resize == "bicubic":
        return bicubic(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


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
    """Without the activation before it."""

    def __init__(self, channels: int, kernel_size: int, description: Architecture):
        super().__init__()
        self.stages = description.pooling_stages
        self.improved = description.pooling == "improved"
        for i in range(1, self.stages + 1):
            self.add_module(f"{i}_outvar_dimred", conv(channels, channels, kernel_size))
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        path = x
        for i in range(1, self.stages + 1):
            convolve = self.get_submodule(f"{i}_outvar_dimred")
            path = (
                self.pool(convolve(path))
                if self.improved
                else convolve(self.pool(path))
            )
            x = x + path
        return x


# The block that taps at strides 32, 16, 8 and 4 enter; the authors' path_group_ids.
PATH_GROUPS = {
    "single": (1, 1, 1, 1),
    "2_cascaded": (1, 1, 2, 2),
    "4_cascaded": (1, 2, 3, 4),
}


class Decoder(nn.Module):
    """RefineNet, or the light-weight one: 1×1 convolutions, no residual units.

    The ports count the blocks from the coarsest, 1. Further taps of a block and units
    before the classifier have names of ours.

    Args:
        tap_strides, tap_channels: of each tap, those of the second scale last.
        description: of the network.
        light_weight: whether it is the light-weight one.
        mobile: it is light-weight over a mobile backbone: ReLU6, taps of one width and
            added as they are.
    """

    def __init__(
        self,
        tap_strides: Sequence[int],
        tap_channels: Sequence[int],
        description: Architecture,
        *,
        light_weight: bool,
        mobile: bool,
    ):
        super().__init__()
        self.description = description
        self.light_weight = light_weight
        self.activation = nn.ReLU6() if mobile else nn.ReLU()
        size = 1 if light_weight else 3
        groups = PATH_GROUPS[description.cascade]
        block_of_stride = dict(zip((32, 16, 8, 4), groups, strict=True))
        # Block: the indices of its taps.
        self.taps: dict[int, list[int]] = {i: [] for i in range(1, max(groups) + 1)}
        for index, stride in enumerate(tap_strides):
            self.taps[block_of_stride[stride]].append(index)

        parts: dict[str, nn.Module] = {}
        before: list[int] = []  # channels of the block before
        for i, taps in self.taps.items():
            widths = [512 if tap_strides[t] == 32 and not mobile else 256 for t in taps]
            channels = min(widths + before)
            for n, (tap, width) in enumerate(zip(taps, widths, strict=True)):
                parts[f"p_ims1d2_outl{i}{suffix(n)}_dimred"] = conv(
                    tap_channels[tap], width, size
                )
                if not light_weight:
                    parts[f"adapt_stage{i}{suffix(n)}_b"] = nn.Sequential(
                        ResidualConvUnits(width, description.adaptation_units)
                    )
                if len(taps + before) > 1 and not mobile:
                    parts[f"adapt_stage{i}{suffix(n)}_b2_joint_varout_dimred"] = conv(
                        width, channels, size
                    )
            if before:
                parts[f"mflow_conv_g{i - 1}_b3_joint_varout_dimred"] = conv(
                    before[0], channels, size
                )
            parts[f"mflow_conv_g{i}_pool"] = nn.Sequential(
                ChainedPooling(channels, size, description)
            )
            if not light_weight:
                parts[f"mflow_conv_g{i}_b"] = nn.Sequential(
                    ResidualConvUnits(channels, description.output_units)
                )
            before = [channels]
        units = 0 if light_weight else description.classifier_units
        parts["clf_b"] = nn.Sequential(ResidualConvUnits(before[0], units))
        outputs = description.num_classes + int(description.void_output)
        parts["clf_conv"] = nn.Conv2d(before[0], outputs, 3, 1, 1)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        x = None
        for i in self.taps:
            x = self._block(i, [taps[t] for t in self.taps[i]], x)
        return self.clf_conv(self.clf_b(x))

    def _block(
        self, i: int, taps: Sequence[torch.Tensor], coarser: torch.Tensor | None
    ) -> torch.Tensor:
        parts = dict(self.named_children())
        inputs = []
        for n, tap in enumerate(taps):
            x = parts[f"p_ims1d2_outl{i}{suffix(n)}_dimred"](tap)
            if not self.light_weight:
                x = parts[f"adapt_stage{i}{suffix(n)}_b"](x)
            fuse = parts.get(f"adapt_stage{i}{suffix(n)}_b2_joint_varout_dimred")
            inputs.append(x if fuse is None else fuse(x))
        if coarser is not None:
            fuse = parts[f"mflow_conv_g{i - 1}_b3_joint_varout_dimred"]
            inputs.append(fuse(coarser))
        largest = max(inputs, key=lambda x: x.shape[2])
        x = sum(fusion_resize(x, largest, self.description) for x in inputs)
        x = parts[f"mflow_conv_g{i}_pool"](self.activation(x))
        return x if self.light_weight else parts[f"mflow_conv_g{i}_b"](x)


def suffix(n: int) -> str:
    """What the further taps of a block have in their names."""
    return "" if n == 0 else f"_tap{n + 1}"


class MobileDecoder(nn.Module):
    """The decoder of the port's MobileNet-v2, under its names.

    MobileNet-v3 has one tap less, the eighth.
    """

    def __init__(self, tap_channels: Sequence[int], description: Architecture):
        super().__init__()
        self.description = description
        for i, channels in enumerate(tap_channels, start=3):
            self.add_module(f"conv{i}", conv(channels, 256, 1))
        for i in range(1, 5):
            pooling = ChainedPooling(256, 1, description)
            self.add_module(f"crp{i}", nn.Sequential(pooling))
        for i in range(2, 5):
            self.add_module(f"conv_adapt{i}", conv(256, 256, 1))
        outputs = description.num_classes + int(description.void_output)
        self.segm = nn.Conv2d(256, outputs, 3, 1, 1)
        self.relu6 = nn.ReLU6()

    def forward(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        tap3, tap4, tap5, tap6, tap7, *tap8 = (
            self.get_submodule(f"conv{i}")(tap) for i, tap in enumerate(taps, start=3)
        )
        x = self.crp4(self.relu6(sum(tap8, start=tap7)))
        x = fusion_resize(self.conv_adapt4(x), tap6, self.description)
        x = self.crp3(self.relu6(tap6 + tap5 + x))
        x = fusion_resize(self.conv_adapt3(x), tap4, self.description)
        x = self.crp2(self.relu6(tap4 + x))
        x = fusion_resize(self.conv_adapt2(x), tap3, self.description)
        x = self.crp1(self.relu6(tap3 + x))
        return self.segm(x)


class RefineNet(nn.Module):
    """Backbones and decoder. image: [B,3,H,W] → scores [B,num_outputs,H/4,W/4]."""

    def __init__(
        self,
        backbones: Sequence[nn.Module],
        decoder: nn.Module,
        input_scales: Sequence[float],
    ):
        super().__init__()
        # Torch gives no names to what is in a tuple: the ports have all names at the
        # top. A second backbone has a name of ours.
        self.backbones = tuple(backbones)
        self.decoders = (decoder,)
        self.input_scales = input_scales
        for part in (backbones[0], decoder):
            for name, child in part.named_children():
                if list(child.parameters()):
                    self.add_module(name, child)
        for i, backbone in enumerate(backbones[1:], start=2):
            self.add_module(f"scale{i}", backbone)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.refine(self.taps(image))

    def taps(self, image: torch.Tensor) -> list[torch.Tensor]:
        """[B,3,H,W] → the taps of each backbone in turn, the finest first."""
        taps = []
        for backbone, scale in zip(self.backbones, self.input_scales, strict=True):
            size = [round(scale * length) for length in image.shape[2:]]
            taps += backbone(image if scale == 1 else bicubic(image, size))
        return taps

    def refine(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """All taps → scores."""
        return self.decoders[0](taps)


def reference(variant: str, num_classes: int = 21, **changes: Any) -> RefineNet:
    """The network of an `architecture`, on the meta device: shapes without values."""
    description = architecture(variant, num_classes, **changes)
    light_weight = variant.startswith("light_")
    mobile = variant.startswith(("light_mobilenet", "light_efficientnet"))
    with torch.device("meta"):
        backbones = [backbone_of(variant) for _ in description.input_scales]
        if mobile and len(backbones) == 1 and description.cascade == "4_cascaded":
            decoder = MobileDecoder(backbones[0].tap_channels, description)
        else:
            decoder = Decoder(
                [stride for part in backbones for stride in part.tap_strides],
                [channels for part in backbones for channels in part.tap_channels],
                description,
                light_weight=light_weight,
                mobile=mobile,
            )
        return RefineNet(backbones, decoder, description.input_scales)


def to_nchw(x: np.ndarray | jax.Array) -> torch.Tensor:
    """[B,H,W,C] → [B,C,H,W]."""
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor) -> np.ndarray:
    """[B,C,H,W] → [B,H,W,C]."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def pictures(count: int, height: int, width: int, *, seed: int) -> torch.Tensor:
    """Smooth random pictures [count,3,height,width]; neighbouring pixels are alike.

    On white noise every pixel of a deep layer would look the same.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 7, 9, generator=generator)
    return 1.5 * F.interpolate(coarse, (height, width), mode="bilinear")


@torch.no_grad()
def fill(network: nn.Module, seed: int) -> None:
    """Random weights and statistics with which every part of the network counts.

    On random pictures each convolution is scaled to an output of standard deviation
    one, and each BatchNorm takes the statistics that it sees. So no branch drowns
    another, and the logits are of order one at any depth. Where there are ReLU6 the
    deviation is two: some of the values reach 6.
    """
    generator = torch.Generator().manual_seed(seed)
    network.to_empty(device="cpu").eval()
    parts = list(network.modules())
    spread = 2.0 if any(isinstance(part, nn.ReLU6) for part in parts) else 1.0
    hooks = []
    for part in parts:
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0, fan_in**-0.5, generator=generator)
            if part.bias is not None:
                part.bias.normal_(0, 0.3, generator=generator)
            hook = functools.partial(_scale_output, spread)
            hooks.append(part.register_forward_hook(hook))
        elif isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.5 * spread, 1.5 * spread, generator=generator)
            part.bias.normal_(0, 0.3, generator=generator)
            hooks.append(part.register_forward_pre_hook(_take_statistics))
        elif isinstance(part, nn.LayerNorm):
            part.weight.uniform_(0.5, 1.5, generator=generator)
            part.bias.normal_(0, 0.3, generator=generator)
        for name in ("gamma", "layer_scale"):  # of ConvNeXt
            if isinstance(scale := getattr(part, name, None), nn.Parameter):
                scale.uniform_(0.1, 0.3, generator=generator)
    for part in parts:
        # Unlike a trained network, a random one whose residuals are as large as their
        # shortcuts multiplies rounding errors a hundredfold in 50 blocks.
        if getattr(part, "adds_input", False):
            part.last_norm().weight.mul_(0.2)
    network(pictures(2, 97, 131, seed=seed))
    for hook in hooks:
        hook.remove()


def _scale_output(
    spread: float,
    part: nn.Conv2d | nn.Linear,
    _: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> torch.Tensor:
    scale = spread / output.std()
    for weight in part.parameters():
        weight.mul_(scale)
    return output * scale


def _take_statistics(part: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
    (x,) = inputs
    part.running_mean.copy_(x.mean((0, 2, 3)))
    variance = x.var((0, 2, 3))
    # A channel that hardly varies would be blown up, and its rounding errors with it.
    part.running_var.copy_(variance.clamp(min=variance.mean()))


def copy_to_network(
    state_dict: Mapping[str, torch.Tensor], network: models.RefineNet, variant: str
) -> None:
    """Fills our network, or its backbones alone, from a torch state_dict."""
    tensors = {key: tensor.detach().numpy() for key, tensor in state_dict.items()}
    set_weights(network, tensors, variant)


def reference_and_ours(
    variant: str, dtype: str = "float32", **changes: Any
) -> tuple[RefineNet, models.RefineNet]:
    """A filled reference and our network with its weights, both for inference."""
    network = reference(variant, **changes)
    fill(network, seed=0)
    ours = abstract_network(architecture(variant, **changes), dtype)
    copy_to_network(network.state_dict(), ours, variant)
    return network, in_inference(ours)

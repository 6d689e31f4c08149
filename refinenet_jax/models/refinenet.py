"""RefineNet, Lin et al. 2017: backbones, and the cascade of blocks that refines their taps."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding
from jax.typing import DTypeLike

from refinenet_jax.models.architecture import CASCADES, Architecture
from refinenet_jax.models.backbones import VARIANTS
from refinenet_jax.models.blocks import (
    BlockInputs,
    DecoderKind,
    RefineNetBlock,
    ResidualConvUnits,
    conv3x3,
)
from refinenet_jax.models.chain import Recomputing, Remat, recomputed
from refinenet_jax.models.layers import Dropout, FeatureMap, plain_keys
from refinenet_jax.models.leaves import BACKBONES, DECODER
from refinenet_jax.models.resize import resize, scaled_sizes

_Module = TypeVar("_Module", bound=nnx.Module)


class Decoder(Recomputing):
    """Cascaded blocks and the classifier (figure 2 of the paper).

    taps: FeatureMaps at `tap_strides` with `tap_channels` channels → scores
    [B,H/4,W/4,num_outputs].
    """

    def __init__(
        self,
        tap_strides: Sequence[int],
        tap_channels: Sequence[int],
        kind: DecoderKind,
        architecture: Architecture,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        keys = plain_keys(rngs)
        self.taps_of_blocks = tuple(
            tuple(i for i, stride in enumerate(tap_strides) if stride in strides)
            for strides in CASCADES[architecture.cascade]
        )
        if not all(self.taps_of_blocks):
            raise ValueError(
                f"a backbone with taps at strides {tuple(tap_strides)} leaves a block of "
                f"cascade {architecture.cascade!r} without any"
            )
        self.drops_tap = tuple(stride >= 16 for stride in tap_strides)
        widths = [
            kind.coarsest_width if stride == 32 else kind.width
            for stride in tap_strides
        ]
        inputs: list[BlockInputs] = []
        for taps in self.taps_of_blocks:
            of_block = BlockInputs(
                tuple(tap_channels[i] for i in taps),
                tuple(widths[i] for i in taps),
                inputs[-1].channels if inputs else None,
            )
            inputs.append(of_block)
        channels = inputs[-1].channels
        self.blocks = nnx.List(
            RefineNetBlock(
                of_block,
                kind,
                adaptation_units=architecture.adaptation_units,
                output_units=architecture.output_units,
                pooling_stages=architecture.pooling_stages,
                convolves_first=architecture.pooling == "improved",
                fusion_resize=architecture.fusion_resize,
                dtype=dtype,
                rngs=keys,
            )
            for of_block in inputs
        )
        self.tap_dropout = Dropout(kind.tap_dropout, rngs=rngs)
        self.classifier_dropout = Dropout(kind.classifier_dropout, rngs=rngs)
        units = architecture.classifier_units if kind.has_units else 0
        self.classifier_units = ResidualConvUnits(
            units, channels, dtype=dtype, rngs=keys
        )
        self.classifier = conv3x3(
            channels, architecture.num_outputs, use_bias=True, dtype=dtype, rngs=keys
        )

    def __call__(
        self, taps: Sequence[FeatureMap], *, rngs: nnx.Rngs | None = None
    ) -> FeatureMap:
        taps = [
            self.tap_dropout(tap, rngs=rngs) if drops else tap
            for tap, drops in zip(taps, self.drops_tap, strict=True)
        ]
        x: Any = None
        for number, (block, indices) in enumerate(
            zip(self.blocks, self.taps_of_blocks, strict=True)
        ):
            of_block = [taps[i] for i in indices]
            forgets = self.remat == "all"
            with jax.named_scope(f"blocks.{number}"):
                x = recomputed(
                    RefineNetBlock.__call__, block, of_block, x, when=forgets
                )
        with jax.named_scope("classifier"):
            x = self.classifier_units(x)
            return self.classifier(self.classifier_dropout(x, rngs=rngs))


class RefineNet(nnx.Module):
    """A network with random weights, in training mode.

    images: float [B,H,W,channels] normalised → logits float32 [B,h,w,num_classes],
    where h and w are a quarter of H and W times the largest input scale, rounded up.

    Example:
        network = RefineNet(Architecture("light_resnet18", num_classes=3), rngs=nnx.Rngs(0))
        logits = network(network.normalize(images))  # images: uint8 [4,64,48,3]
        assert logits.shape == (4, 16, 12, 3)

    `in_inference(network)` is the same network for inference, `in_training(network)`
    for training; they share their variables.

    Attributes:
        architecture: what it was built from.
        backbones: one for each scale of the picture.
        decoder: what refines their taps.

    Args:
        architecture: the description.
        dtype: of the arithmetic, float32 or bfloat16; parameters and logits are
            float32.
        rngs: the stream "params", and "dropout" where the network is to have a dropout
            stream of its own, as nnx.Rngs(0) has; without one, training needs the
            `rngs` of `forward`.

    Raises:
        ValueError: a backbone does not suit the cascade.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        backbone, kind = VARIANTS[architecture.variant]
        backbones: list[Any] = [
            backbone.build(architecture.channels, dtype=dtype, rngs=rngs)
            for _ in architecture.input_scales
        ]
        self.architecture = architecture
        self.backbones = nnx.List(backbones)
        self.decoder = Decoder(
            [stride for part in backbones for stride in part.tap_strides],
            [channels for part in backbones for channels in part.tap_channels],
            kind,
            architecture,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.forward(FeatureMap(images)).values

    def normalize(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Any dtype [B,H,W,channels] → float32, (image - mean) / std per channel."""
        mean, std = (
            jnp.asarray(values, jnp.float32)[None, None, None]
            for values in (self.architecture.mean, self.architecture.std)
        )
        values = jnp.asarray(images, jnp.float32)
        if self.architecture.picture_dtype == "float32":
            values = jnp.where(jnp.isfinite(values), values, mean)
        return (values - mean) / std

    def forward(
        self,
        images: FeatureMap,
        *,
        with_void: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> FeatureMap:
        """Logits of pictures that may be padded, each of a size of its own.

        Args:
            images: float [B,H,W,channels] normalised.
            with_void: the output for void stays at the end, where there is one.
            rngs: the stream "dropout" in place of the network's own; of use in
                training only.

        Returns:
            float32 [B,h,w,num_classes], or num_outputs.
        """
        taps: list[FeatureMap] = []
        # Profiles, and the pages of mode plan, name a layer by its path.
        for number, (backbone, scale) in enumerate(
            zip(self.backbones, self.architecture.input_scales, strict=True)
        ):
            with jax.named_scope(f"{BACKBONES}.{number}"):
                taps += backbone(_scaled(images, scale))
        with jax.named_scope(DECODER):
            scores = self.decoder(taps, rngs=rngs)
        kept = None if with_void else self.architecture.num_classes
        return scores.with_values(scores.values[..., :kept].astype(jnp.float32))


def abstract_network(
    architecture: Architecture, dtype: DTypeLike = jnp.float32
) -> RefineNet:
    """The network with shapes in place of weights, which takes no memory.

    Example:
        network = abstract_network(Architecture("resnet152", num_classes=150))
        assert count_parameters(network) == 133_993_430
    """
    return nnx.eval_shape(
        lambda: RefineNet(
            architecture, dtype=dtype, rngs=nnx.Rngs(params=jax.random.key(0))
        )
    )


def in_inference(
    network: _Module, *, kernel_sharding: Sharding | None = None
) -> _Module:
    """The same network without dropout and with its own BatchNorm statistics.

    Any nnx.Module; the view shares its variables.

    kernel_sharding: whole on each device, where the rows of pictures are divided over
        devices.

    Example:
        segment = in_inference(network)
        logits = segment(segment.normalize(images))
        np.testing.assert_array_equal(logits, segment(segment.normalize(images)))
    """
    return nnx.view(
        network,
        deterministic=True,
        use_running_average=True,
        kernel_sharding=kernel_sharding,
        # A network may have neither dropout nor BatchNorm.
        raise_if_not_found=False,
    )


def in_training(
    network: _Module,
    *,
    frozen_statistics: bool = False,
    remat: Remat = "none",
    in_loop: bool = False,
    kernel_sharding: Sharding | None = None,
) -> _Module:
    """The same network with dropout and with the statistics of the batch.

    Any nnx.Module; the view shares its variables.

    frozen_statistics: BatchNorm keeps and uses its own, as in the paper.
    remat: what the backward pass computes again to save memory, see `Recomputing`.
    in_loop: it is traced into the body of a loop, where some gradients are slow.
    kernel_sharding: whole on each device, where the rows of pictures are divided over
        devices.

    Example:
        as_in_the_paper = in_training(network, frozen_statistics=True)
        logits = as_in_the_paper(network.normalize(images))
    """
    return nnx.view(
        network,
        deterministic=False,
        use_running_average=frozen_statistics,
        remat=remat,
        in_loop=in_loop,
        kernel_sharding=kernel_sharding,
        raise_if_not_found=False,
    )


def _scaled(image: FeatureMap, scale: float) -> FeatureMap:
    """The authors' code shows the network a larger picture than it was given."""
    if scale == 1:
        return image
    height, width = scaled_sizes(np.asarray(image.values.shape[1:3]), scale).tolist()
    size = None if image.size is None else scaled_sizes(image.size, scale)
    return resize(image, (height, width), size, "bicubic")

"""The description of a network in plain values."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from etils import epath

from refinenet_jax.errors import UserError
from refinenet_jax.models.backbones import VARIANTS, refuse_unknown_variant
from refinenet_jax.models.resize import ResizeMethod

PoolingOrder = Literal["original", "improved"]

# Figure 2 of the paper: which strides of the backbone enter which block, the coarsest
# block first. Each block also receives the one before it.
CASCADES: dict[str, tuple[tuple[int, ...], ...]] = {
    "single": ((4, 8, 16, 32),),
    "2_cascaded": ((16, 32), (4, 8)),
    "4_cascaded": ((32,), (16,), (8,), (4,)),
}

# They do not change which weights fit.
_NORMALISATION = ("mean", "std", "picture_dtype")
_OF_CLASSIFIER = ("num_classes", "void_output")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that determines the shapes of a network and what it computes.

    Example:
        paper = Architecture("resnet101_caffe", 21, input_scales=(1.2,), void_output=True)
        assert paper.num_outputs == 22
        assert Architecture.from_json(paper.to_json()) == paper

    Attributes:
        variant: a key of `VARIANTS`.
        num_classes: channels of the logits.
        mean: of each channel, in the units of the pictures (0..255 for 8 bits, 0..65535
            for 16); empty: what the backbone's published weights were trained with.
        std: as `mean`; pictures are normalised to (image - mean) / std.
        picture_dtype: of the pictures, "uint8", "uint16" or "float32"; in the last, NaN
            and infinity are taken for the mean.
        void_output: one output more, for pixels of no class; the authors' networks
            have it. It takes part in training and is left out of the logits.
        input_scales: what the picture is resized by; each scale has a backbone of its
            own. The authors' networks have (1.2,), their 2-scale one (1.2, 0.6).
        cascade: a key of `CASCADES`.
        adaptation_units: residual units on each tap (full networks).
        output_units: residual units after each block (full networks).
        classifier_units: residual units before the classifier (full networks).
        pooling: "original" pools, then convolves; "improved" convolves, then pools.
        pooling_stages: of each chain; 4 in the authors' code, 2 in the paper's text;
            0 leaves its ReLU.
        fusion_resize: how coarser inputs of a block are brought to the finest:
            "align_corners" as the PyTorch ports, "bicubic" as the authors' code.

    Raises:
        UserError: a value that is unknown or cannot be.
    """

    variant: str
    num_classes: int
    _: dataclasses.KW_ONLY
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    void_output: bool = False
    input_scales: tuple[float, ...] = (1.0,)
    cascade: str = "4_cascaded"
    adaptation_units: int = 2
    output_units: int = 3
    classifier_units: int = 0
    pooling: PoolingOrder = "original"
    pooling_stages: int = 4
    fusion_resize: ResizeMethod = "align_corners"
    picture_dtype: str = "uint8"

    def __post_init__(self) -> None:
        refuse_unknown_variant(self.variant)
        backbone, _ = VARIANTS[self.variant]
        # Frozen for others; whoever reads the fields finds tuples that are filled.
        object.__setattr__(self, "mean", tuple(self.mean) or backbone.mean)
        object.__setattr__(self, "std", tuple(self.std) or backbone.std)
        object.__setattr__(self, "input_scales", tuple(self.input_scales))
        for name, known in (
            ("cascade", tuple(CASCADES)),
            ("pooling", get_args(PoolingOrder)),
            ("fusion_resize", ("align_corners", "bicubic")),
            ("picture_dtype", ("uint8", "uint16", "float32")),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name}={getattr(self, name)!r} is unknown; known: "
                    f"{', '.join(known)}"
                )
        if self.num_classes < 1:
            raise UserError(f"num_classes={self.num_classes} must be 1 or more")
        if len(self.mean) != len(self.std):
            raise UserError(
                f"mean has {len(self.mean)} channels and std {len(self.std)}: give both"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Architecture":
        """The inverse of `to_json`; a field that is missing has its default.

        Raises:
            UserError: a field is unknown here, or a value is.
        """
        unknown = sorted(values.keys() - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise UserError(
                f"a network of a later version: {', '.join(unknown)} is unknown here; "
                "use the version that wrote it"
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def channels(self) -> int:
        """Of the pictures that the network sees."""
        return len(self.mean)

    @property
    def num_outputs(self) -> int:
        """Channels of the classifier."""
        return self.num_classes + self.void_output


def check_same_network(
    origin: str | epath.Path,
    found: Architecture,
    wanted: Architecture,
    *,
    with_classifier: bool = True,
) -> None:
    """Raises UserError where some weights are not of the network asked for.

    The normalisation may differ: weights fit whatever it is.

    origin: what holds the weights of `found`.
    with_classifier: False lets them differ in the number of classes.
    """
    free = _NORMALISATION if with_classifier else _NORMALISATION + _OF_CLASSIFIER
    differing = [
        field.name
        for field in dataclasses.fields(Architecture)
        if field.name not in free
        and getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if found.channels != wanted.channels:
        differing.append("channels")
    if differing:
        theirs, ours = (
            " and ".join(f"{name}={getattr(network, name)!r}" for name in differing)
            for network in (found, wanted)
        )
        raise UserError(
            f"{origin} holds a network with {theirs}, the config asks for {ours}: "
            "choose another or change config.model"
        )

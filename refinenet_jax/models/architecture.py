"""The description of a network in plain values."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from refinenet_jax.errors import UserError
from refinenet_jax.models.resize import ResizeMethod

PoolingOrder = Literal["original", "improved"]

# Figure 2 of the paper: which strides of the backbone enter which block, the coarsest
# block first. Each block also receives the one before it.
CASCADES: dict[str, tuple[tuple[int, ...], ...]] = {
    "single": ((4, 8, 16, 32),),
    "2_cascaded": ((16, 32), (4, 8)),
    "4_cascaded": ((32,), (16,), (8,), (4,)),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that determines the shapes of a network and what it computes.

    Attributes:
        variant: a key of build.VARIANTS.
        num_classes: channels of the logits.
        void_output: one output more, for pixels of no class; the authors' networks
            have it. It takes part in training and is left out of the logits.
        input_scales: what the picture is resized by; each scale has a backbone of its
            own. The authors' networks have (1.2,), their 2-scale one (1.2, 0.6).
        cascade: a key of CASCADES.
        adaptation_units: residual units on each tap (full networks).
        output_units: residual units after each block (full networks).
        classifier_units: residual units before the classifier (full networks).
        pooling: "original" pools, then convolves; "improved" convolves, then pools.
        pooling_stages: of each chain; 0 leaves its ReLU.
        fusion_resize: how coarser inputs of a block are brought to the finest.
    """

    variant: str
    num_classes: int
    void_output: bool
    input_scales: tuple[float, ...]
    cascade: str
    adaptation_units: int
    output_units: int
    classifier_units: int
    pooling: PoolingOrder
    pooling_stages: int
    fusion_resize: ResizeMethod

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Architecture":
        """The inverse of `to_json`; JSON knows no tuples.

        Raises:
            UserError: a field is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if values.keys() != names:
            other = sorted(values.keys() ^ names)
            raise UserError(
                f"a checkpoint of another version: {', '.join(other)} of its network is "
                "missing or unknown here; use the version that wrote it"
            )
        return cls(**{**values, "input_scales": tuple(values["input_scales"])})

    def to_json(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return {**dataclasses.asdict(self), "input_scales": list(self.input_scales)}

    @property
    def num_outputs(self) -> int:
        """Channels of the classifier."""
        return self.num_classes + self.void_output


def check_same_network(
    origin: str | Path,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    with_classifier: bool = True,
) -> None:
    """Raises UserError where some weights are not of the network asked for.

    found, wanted: what `to_json` gives of both.
    with_classifier: False lets them differ in the number of classes.
    """
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if not with_classifier:
        differing = [n for n in differing if n not in ("num_classes", "void_output")]
    if differing:
        theirs, ours = (
            " and ".join(f"{name}={values.get(name)!r}" for name in differing)
            for values in (found, wanted)
        )
        raise UserError(
            f"{origin} holds a network with {theirs}, the config asks for {ours}: "
            "choose another or change config.model"
        )

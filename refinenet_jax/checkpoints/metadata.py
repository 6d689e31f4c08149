"""What a checkpoint says of the network it holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from refinenet_jax.errors import UserError
from refinenet_jax.models import Architecture

Colour = tuple[int, int, int]

# 1: the normalisation became a part of the architecture; before there was no number.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Metadata:
    """All that is needed to use a network without the config of its run.

    A field that is added later needs a default, which older checkpoints take.

    Attributes:
        architecture: of the network.
        class_names: one for each class id, in order.
        palette: an RGB colour, 0..255, for each class id.
        dataset: what it was trained on, as config.data.name; "" where nobody knows.
        dtype: of the arithmetic, "float32" or "bfloat16".
        size_multiple: what images beyond all buckets are padded to a multiple of.
        optimizer: of the run, as config.optimizer.name.
        averaged: the network is an average over the steps, as config.train.ema has it.
        config: the complete configuration of the run, ready for JSON.
        step: how many steps the network was trained.
        mean_iou: of its evaluation at that step; None where it was not evaluated.
        weights: {"file", "sha256", "source"} of what it was converted from; None for a
            network that was trained here.
    """

    architecture: Architecture
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    _: dataclasses.KW_ONLY
    dataset: str = ""
    dtype: str = "float32"
    size_multiple: int = 128
    optimizer: str = ""
    averaged: bool = False
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    step: int = 0
    mean_iou: float | None = None
    weights: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Every field, ready for JSON, with the version of this form."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **values,
            "version": VERSION,
            "architecture": self.architecture.to_json(),
            "class_names": list(self.class_names),
            "palette": [list(colour) for colour in self.palette],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Metadata":
        """The inverse of `to_json`, also of what earlier versions wrote.

        Raises:
            UserError: it was written by a later version.
            KeyError, TypeError, ValueError: it is no such metadata.
        """
        values = dict(values)
        version = values.pop("version", 0)
        if version > VERSION:
            raise UserError(
                f"a checkpoint of form {version}, this version reads up to {VERSION}: "
                "install the version of refinenet_jax that wrote it, or a later one"
            )
        architecture = dict(values.pop("architecture"))
        if version == 0:
            architecture |= {name: values.pop(name) for name in ("mean", "std")}
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(
            Architecture.from_json(architecture),
            tuple(values.pop("class_names")),
            tuple(tuple(colour) for colour in values.pop("palette")),
            **{name: value for name, value in values.items() if name in known},
        )

"""What the settings may be."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from refinenet_jax.config import default, flatten
from refinenet_jax.errors import UserError

_CHOICES: dict[str, tuple[str, ...]] = {
    "model.dtype": ("float32", "bfloat16"),
    "model.batch_norm": ("trained", "frozen_statistics", "frozen"),
    "model.cascade": ("single", "2_cascaded", "4_cascaded"),
    "model.pooling": ("original", "improved"),
    "model.fusion_resize": ("align_corners", "bicubic"),
    "data.damaged": ("stop", "skip"),
    "data.sampling": ("uniform", "class_balanced"),
    "data.crop": ("random", "class_centred"),
    "data.folder.encoding": ("ids", "colours"),
    "optimizer.name": ("sgd", "adamw"),
    "optimizer.schedule": ("constant", "step", "poly", "cosine"),
    "loss.resolution": ("label", "prediction"),
    "eval.fusion": ("softmax", "log_softmax"),
    "eval.checkpoint": ("best", "latest"),
    "predict.competition": ("comp5", "comp6"),
}

_MIXED = ("name", "split", "weight", "manual_dir", "class_map", "min_pixels")

_FORMATS = ("safetensors", "stablehlo", "onnx")

_Rule = tuple[str, Callable[[Any], bool]]
_POSITIVE: _Rule = ("more than 0", lambda x: x > 0)
_NOT_NEGATIVE: _Rule = ("0 or more", lambda x: x >= 0)
_FRACTION: _Rule = ("in 0..1", lambda x: 0 <= x <= 1)
_RANGE: _Rule = (
    "two numbers more than 0, the smaller first",
    lambda x: len(x) == 2 and 0 < x[0] <= x[1],
)
_RULES: dict[str, _Rule] = {
    "seed": ("in 0..4294967295", lambda x: 0 <= x < 2**32),
    "model.num_classes": ("0, or in 2..255", lambda x: x == 0 or 2 <= x <= 255),
    "model.input_scales": (
        "a tuple of numbers more than 0, such as (1.2,)",
        lambda x: len(x) > 0 and min(x) > 0,
    ),
    "model.adaptation_units": _NOT_NEGATIVE,
    "model.output_units": _NOT_NEGATIVE,
    "model.classifier_units": _NOT_NEGATIVE,
    "model.pooling_stages": _NOT_NEGATIVE,
    "model.mean": ("three numbers, or ()", lambda x: len(x) in (0, 3)),
    "model.std": (
        "three numbers above 0, or ()",
        lambda x: len(x) == 0 or (len(x) == 3 and min(x) > 0),
    ),
    "data.check_images": _NOT_NEGATIVE,
    "data.images_per_class": _POSITIVE,
    "data.weight": _POSITIVE,
    "data.mix": (
        f"a tuple of dictionaries of {', '.join(_MIXED)}; weight above 0",
        lambda x: all(set(each) == set(_MIXED) and each["weight"] > 0 for each in x),
    ),
    "data.short_edge": _RANGE,
    "data.scale_range": _RANGE,
    "data.scale_step": _NOT_NEGATIVE,
    "data.flip_probability": _FRACTION,
    "data.rotation": ("in 0..180", lambda x: 0 <= x <= 180),
    "data.colour_jitter": (
        "four numbers of 0 or more, the last up to 0.5",
        lambda x: len(x) == 4 and min(x) >= 0 and x[3] <= 0.5,
    ),
    "data.blur": _NOT_NEGATIVE,
    "data.folder.ignore": (
        "a tuple of values in 0..65535, such as (255,)",
        lambda x: all(0 <= value <= 65535 for value in x),
    ),
    "data.crop_size": _POSITIVE,
    "data.num_workers": _NOT_NEGATIVE,
    "data.num_threads": _POSITIVE,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.encoder_multiplier": _NOT_NEGATIVE,
    "optimizer.momentum": _FRACTION,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.clip_norm": _NOT_NEGATIVE,
    "optimizer.warmup_steps": _NOT_NEGATIVE,
    "optimizer.step_at": (
        "rising shares in 0..1",
        lambda x: list(x) == sorted(x) and all(0 < share < 1 for share in x),
    ),
    "optimizer.step_factor": _FRACTION,
    "optimizer.poly_power": _POSITIVE,
    "train.num_steps": _POSITIVE,
    "train.batch_size": _POSITIVE,
    "train.log_every": _POSITIVE,
    "train.eval_every": _NOT_NEGATIVE,
    "train.checkpoint_every": _NOT_NEGATIVE,
    "train.keep_checkpoints": _POSITIVE,
    "eval.batch_size": _POSITIVE,
    "eval.size_multiple": _POSITIVE,
    "eval.buckets": (
        "a tuple of (height, width), such as ((512, 512),)",
        lambda x: all(len(size) == 2 and min(size) > 0 for size in x),
    ),
    "eval.short_edge": _RANGE,
    "eval.scales": (
        "a tuple of numbers more than 0, such as (0.5, 1.0)",
        lambda x: len(x) > 0 and min(x) > 0,
    ),
    "eval.bootstrap_samples": _NOT_NEGATIVE,
    "eval.boundary_width": _FRACTION,
    "eval.window": _NOT_NEGATIVE,
    "eval.overlap": ("0 or more and less than 1", lambda x: 0 <= x < 1),
    "export.formats": (
        f"a tuple of {', '.join(_FORMATS)}",
        lambda x: isinstance(x, tuple) and len(x) > 0 and set(x) <= set(_FORMATS),
    ),
    "export.size": (
        "(height, width), such as (512, 512)",
        lambda x: len(x) == 2 and min(x) > 0,
    ),
    "predict.submission": (
        "empty, voc2012, cityscapes or ade20k",
        lambda x: x in ("", "voc2012", "cityscapes", "ade20k"),
    ),
}


def check(config: ConfigDict) -> None:
    """Raises UserError for the first field that cannot be right.

    What needs the tables of other rooms (variants, data sets) is checked there.
    """
    values = flatten(config)
    for field, known in _CHOICES.items():
        if values[field] not in known:
            raise UserError(
                f"config.{field}={values[field]!r} is unknown; known: {', '.join(known)}"
            )
    for field, (wanted, holds) in _RULES.items():
        try:
            right = holds(values[field])
        except TypeError:  # text where a number belongs
            right = False
        if not right:
            raise UserError(f"config.{field}={values[field]!r} must be {wanted}")


def check_field(path: str) -> None:
    """Raises UserError where `path`, such as "train.num_steps", names no field."""
    *parents, name = path.split(".")
    group: Any = default()
    for index, parent in enumerate(parents):
        if parent not in group or not isinstance(group[parent], ConfigDict):
            _refuse_field(".".join(parents[: index + 1]), group)
        group = group[parent]
    if name not in group:
        _refuse_field(path, group)


def _refuse_field(path: str, group: Mapping[str, Any]) -> None:
    known = ", ".join(sorted(group))
    raise UserError(f"config.{path} is unknown; known there: {known}")

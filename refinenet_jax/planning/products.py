"""Convolutions and products of a program: their arithmetic and their dtypes."""

import dataclasses
import math
import re

from refinenet_jax.planning.hlo import Array, Instruction, Module

_CUBLAS = "__cublas$"
_CUDNN = "__cudnn$conv"
_WIDE = {"f32", "f64"}


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or a matrix product.

    Attributes:
        kind: "convolution" or "product".
        dtype: of its factors, in XLA's words; that of the wider one.
        flops: multiplications and additions of one run; 0 where only the library that
            is called could tell.
        times: how often a program runs it.
        layer: that it belongs to.
    """

    kind: str
    dtype: str
    flops: int
    times: int
    layer: str


def products(module: Module) -> list[Product]:
    """Every convolution and product of a program, compiled or not."""
    found = []
    for computation, each, times in module.walk():
        kind = _kind(each)
        if kind is None:
            continue
        factors = [
            module.computations[computation][name].arrays[0]
            for name in each.operands[:2]
            if name in module.computations[computation]
        ]
        flops = 0
        if len(factors) == 2 and each.opcode == "convolution":
            flops = convolution_flops(each, *factors)
        elif len(factors) == 2 and each.opcode == "dot":
            flops = product_flops(each, factors[0])
        dtypes = [factor.dtype for factor in factors] or [each.arrays[0].dtype]
        found.append(
            Product(
                kind=kind,
                dtype=next((name for name in dtypes if name in _WIDE), dtypes[0]),
                flops=flops,
                times=times,
                layer=module.layer(each),
            )
        )
    return found


def _kind(instruction: Instruction) -> str | None:
    target = instruction.custom_target
    if instruction.opcode == "convolution" or target.startswith(_CUDNN):
        return "convolution"
    if instruction.opcode == "dot" or target.startswith(_CUBLAS):
        return "product"
    return None


def product_flops(instruction: Instruction, left: Array) -> int:
    """2 for each pair of factors that meet."""
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
    axes = (
        [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    )
    [result] = instruction.arrays
    return 2 * math.prod(result.shape) * math.prod(left.shape[axis] for axis in axes)


def convolution_flops(instruction: Instruction, left: Array, right: Array) -> int:
    """2 for each pair of factors that meet; zeros around and between do not count."""
    [result] = instruction.arrays
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    if labels is None:
        return 0
    groups = re.search(r"batch_group_count=(\d+)", instruction.rest)
    pairs = result.shape[labels[3].index("f")] * result.shape[labels[3].index("b")]
    pairs *= right.shape[labels[2].index("i")] // (int(groups[1]) if groups else 1)
    spatial = sum(label.isdigit() for label in labels[1])
    window = _window(instruction.rest, spatial)
    for axis in range(spatial):
        pairs *= _meetings(
            left.shape[labels[1].index(str(axis))],
            right.shape[labels[2].index(str(axis))],
            result.shape[labels[3].index(str(axis))],
            {name: values[axis] for name, values in window.items()},
        )
    return 2 * pairs


def _window(text: str, spatial: int) -> dict[str, list[int]]:
    """Strides, dilations and the padding before, for each axis of space."""
    found = {name: [1] * spatial for name in ("stride", "lhs_dilate", "rhs_dilate")}
    found["pad"] = [0] * spatial
    window = re.search(r"window=\{([^}]*)\}", text)
    for part in window[1].split() if window else []:
        name, _, values = part.partition("=")
        if name in found:
            found[name] = [int(value.split("_")[0]) for value in values.split("x")]
    return found


def _meetings(length: int, kernel: int, out: int, window: dict[str, int]) -> int:
    """Along one axis: how many values, not zeros, all windows together look at."""
    dilated = (length - 1) * window["lhs_dilate"] + 1
    count = 0
    for tap in range(kernel):
        first = tap * window["rhs_dilate"] - window["pad"]
        positions = range(first, first + out * window["stride"], window["stride"])
        inside = [p for p in positions if 0 <= p < dilated]
        count += sum(position % window["lhs_dilate"] == 0 for position in inside)
    return count


def total_flops(found: list[Product]) -> dict[str, int]:
    """By dtype."""
    totals: dict[str, int] = {}
    for each in found:
        totals[each.dtype] = totals.get(each.dtype, 0) + each.flops * each.times
    return totals

"""What a compiled program says of itself, as plain values that JSON can hold."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refinenet_jax.planning import buffers, hlo
from refinenet_jax.planning.collectives import Collective, collectives
from refinenet_jax.planning.hlo import Array, Instruction, Module
from refinenet_jax.planning.products import products

_NUM_LISTED = 10
# Tensors whose tiles hold this much more than their values, and at least so many bytes.
_BAD_SHARE, _BAD_BYTES = 1.5, 2**20
# What neither reads nor writes memory by itself.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "opt-barrier",
}
_BYTES = {"u8", "s8"}
_SLICES = {"slice", "dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Of one compiled program, on one device.

    Attributes:
        kept: bytes of what the forward pass keeps for the backward pass, at the fullest
            moment.
        gradients: bytes of gradients of parameters then.
        traffic: bytes that are read and written, each operand and result once for each
            instruction.
        collectives: what devices send each other.
        products: how many convolutions and products there are by dtype.
        wide: float32 ones, each with its layer.
        largest: the ten largest buffers of the fullest moment.
        padded: tensors whose tiles hold much more than their values.
    """

    kept: int
    gradients: int
    traffic: int
    collectives: list[Collective]
    products: dict[str, int]
    wide: list[dict[str, Any]]
    largest: list[dict[str, Any]]
    padded: list[dict[str, Any]]


def analyse(
    text: str, num_devices: int, parameter_shapes: Iterable[Sequence[int]]
) -> Analysis:
    """Reads a compiled program.

    Args:
        text: of the program, as `Compiled.as_text` gives it.
        num_devices: that run it.
        parameter_shapes: that gradients are known by.
    """
    module = hlo.parse(text)
    fullest = buffers.peak(module)
    shapes = {_essence(shape) for shape in parameter_shapes}
    gradients = [
        b
        for b in fullest.buffers
        if not b.forward and b.array.shape and _essence(b.array.shape) in shapes
    ]
    found = products(module)
    counts: dict[str, int] = {}
    for each in found:
        counts[each.dtype] = counts.get(each.dtype, 0) + each.times
    return Analysis(
        kept=sum(b.size for b in fullest.buffers if b.kept),
        gradients=sum(b.size for b in gradients),
        traffic=traffic(module),
        collectives=collectives(module, num_devices),
        products=counts,
        wide=_wide(found),
        largest=[_largest(b) for b in _by_size(fullest.buffers)[:_NUM_LISTED]],
        padded=_padded(module)[:_NUM_LISTED],
    )


def traffic(module: Module) -> int:
    """Bytes from and to the main memory, if nothing is read twice by an instruction."""
    total = 0
    for computation, each, times in _scheduled(module, module.entry, 1):
        if each.opcode in _FREE or each.opcode.endswith("-done"):
            continue
        instructions = module.computations[computation]
        target = buffers.in_place_of(module, each)
        moved = _written(module, each, instructions)
        for number, name in enumerate(each.operands):
            if name in instructions and number != target:
                moved += _read(module, each, number, instructions[name])
        total += times * moved
    return total


def _written(
    module: Module, each: Instruction, instructions: Mapping[str, Instruction]
) -> int:
    """Bytes of a result that are written: of an array that is updated not the whole."""
    whole = sum(map(_main_bytes, each.arrays))
    if buffers.in_place_of(module, each) is not None:
        return min(whole, buffers.updated(module, each, instructions).size)
    arrays = list(each.arrays)
    if each.opcode.endswith("-start") and each.opcode != "all-reduce-start":
        # It holds its own operands besides the result.
        given = [hlo.leaves(instructions[name].result) for name in each.operands]
        for array in itertools.chain.from_iterable(given):
            if array in arrays:
                arrays.remove(array)
    if each.opcode == "custom-call" and len(arrays) > 1 and arrays[-1].dtype in _BYTES:
        arrays.pop()  # a library's room to work in
    return sum(map(_main_bytes, arrays))


def _scheduled(module: Module, computation: str, times: int) -> Iterable[Any]:
    """Instructions that run one after the other; inside of fusions nothing does."""
    for each in module.computations[computation].values():
        yield computation, each, times
        if each.opcode in ("while", "call", "conditional"):
            count = times * (module.trips(each) if each.opcode == "while" else 1)
            for called in each.called:
                yield from _scheduled(module, called, count)


def _read(module: Module, each: Instruction, number: int, operand: Instruction) -> int:
    """Bytes of an operand that are read: of a slice not the whole."""
    whole = sum(map(_main_bytes, hlo.leaves(operand.result)))
    if each.opcode in _SLICES:
        return min(whole, sum(array.size for array in each.arrays))
    if each.opcode != "fusion" or each.called[0] not in module.computations:
        return whole
    body = module.computations[each.called[0]]
    parameters = [i for i in body.values() if i.opcode == "parameter"]
    by_number = {i.number: i.name for i in parameters}
    uses = [i for i in body.values() if by_number.get(number) in i.operands]
    if uses and all(use.opcode in _SLICES for use in uses):
        return min(whole, sum(array.size for use in uses for array in use.arrays))
    return whole


def _main_bytes(array: Array) -> int:
    return array.padded_size if array.in_main_memory else 0


def _essence(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes longer than 1: a 1×1 kernel's gradient is that of a matrix."""
    return tuple(sorted(length for length in shape if length > 1))


def _by_size(found: list[buffers.Buffer]) -> list[buffers.Buffer]:
    return sorted(found, key=lambda each: -each.size)


def _largest(buffer: buffers.Buffer) -> dict[str, Any]:
    return {
        "bytes": buffer.size,
        "array": str(buffer.array),
        "layer": buffer.layer,
        "kept_for_backward": buffer.kept,
    }


def _wide(found: Sequence[Any]) -> list[dict[str, Any]]:
    """The float32 convolutions and products, by layer."""
    rows: dict[tuple[str, str], int] = {}
    for each in found:
        if each.dtype == "f32":
            key = each.kind, each.layer
            rows[key] = rows.get(key, 0) + each.times
    return [
        {"kind": kind, "layer": layer, "count": count}
        for (kind, layer), count in rows.items()
    ]


def _padded(module: Module) -> list[dict[str, Any]]:
    """Tensors in main memory that their tiles make much larger, the worst first."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for _, each, _ in _scheduled(module, module.entry, 1):
        for array in each.arrays:
            lost = _main_bytes(array) - array.size
            if lost >= _BAD_BYTES and array.padded_size > _BAD_SHARE * array.size:
                layer = module.layer(each)
                rows[str(array), layer] = {
                    "array": str(array),
                    "layer": layer,
                    "bytes": array.size,
                    "padded_bytes": array.padded_size,
                }
    return sorted(rows.values(), key=lambda row: row["bytes"] - row["padded_bytes"])

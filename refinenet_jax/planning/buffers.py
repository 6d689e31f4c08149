"""What lies in memory at the fullest moment of a compiled program.

Compiled programs are in the order they run in, so each result can be followed from where
it is made to its last use. The compiler's own sums are exact and tell no names; these
tell names, and the sums are the compiler's (see `program`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from refinenet_jax.planning.hlo import (
    Array,
    Instruction,
    Module,
    is_backward,
    is_forward,
    leaves,
)

# Results that are another one's memory, or none.
_SAME = {"bitcast", "optimization-barrier", "opt-barrier", "copy-done", "while"}
_NONE = {"parameter", "constant", "partition-id", "replica-id", "after-all"}


@dataclasses.dataclass
class Buffer:
    """Memory that a result takes until its last use.

    Attributes:
        array: its type.
        layer: that it belongs to.
        made_by: the opcode that fills it.
        forward: whether it is made in the forward pass.
        kept: whether the backward pass looks at it.
        is_output: whether it leaves the program.
        last_use: position of the last instruction that looks at it.
        moved_from: what the compiler only moves to it, by itself.
    """

    array: Array
    layer: str
    made_by: str
    forward: bool
    kept: bool = False
    is_output: bool = False
    last_use: int = -1
    moved_from: list["Buffer"] = dataclasses.field(default_factory=list)

    def keep(self) -> None:
        """The backward pass looks at it, and so at what it is a copy of."""
        if not self.kept:
            self.kept = self.forward
            for source in self.moved_from:
                source.keep()

    @property
    def size(self) -> int:
        """Bytes in the main memory."""
        return self.array.padded_size if self.array.in_main_memory else 0


@dataclasses.dataclass(frozen=True)
class Peak:
    """The fullest moment: bytes of temporaries, and the buffers that hold them."""

    size: int
    buffers: list[Buffer]


def peak(module: Module, computation: str = "") -> Peak:
    """Of a compiled program, or of one of its computations with what that calls."""
    instructions = list(module.computations[computation or module.entry].values())
    made, values = _follow(module, instructions)
    live: dict[int, Buffer] = {}
    total, fullest = 0, Peak(0, [])
    for position, each in enumerate(instructions):
        for buffer in made[position]:
            if not buffer.is_output and buffer.size:
                live[id(buffer)] = buffer
                total += buffer.size
        inner = _peak_inside(module, each)
        if total + inner.size > fullest.size:
            fullest = Peak(total + inner.size, [*live.values(), *inner.buffers])
        used = {id(b) for name in each.operands for b in _of(values.get(name))}
        for key in used | {id(buffer) for buffer in made[position]}:
            if key in live and live[key].last_use <= position:
                total -= live.pop(key).size
    return fullest


def _peak_inside(module: Module, instruction: Instruction) -> Peak:
    if instruction.opcode not in ("while", "call", "conditional"):
        return Peak(0, [])
    inside = [peak(module, name) for name in instruction.called]
    return max(inside, key=lambda each: each.size, default=Peak(0, []))


def _follow(
    module: Module, instructions: list[Instruction]
) -> tuple[list[list[Buffer]], dict[str, Any]]:
    """The buffers that each instruction makes, and those of each result by its name."""
    made: list[list[Buffer]] = []
    values: dict[str, Any] = {}
    types = {each.name: each.arrays for each in instructions}
    for position, each in enumerate(instructions):
        operands = [values.get(name) for name in each.operands]
        for operand in operands:
            for buffer in _of(operand):
                buffer.last_use = position
                if is_backward(module.op_name(each)):
                    buffer.keep()
        fresh: list[Buffer] = []
        given = {array for name in each.operands for array in types.get(name, [])}
        values[each.name] = _value(module, each, operands, given, fresh)
        made.append(fresh)
        if each.is_root:
            for buffer in _of(values[each.name]):
                buffer.is_output = True
    return made, values


def _value(
    module: Module,
    each: Instruction,
    operands: list[Any],
    given: set[Array],
    fresh: list[Buffer],
) -> Any:
    """The buffers of a result, as a tree; those that are new are added to `fresh`.

    operands: their buffers; given: their arrays.
    """
    if each.opcode in _NONE:
        return None
    if each.opcode == "tuple":
        return operands
    if each.opcode == "get-tuple-element":
        index = int(each.rest.partition("index=")[2].partition(",")[0].split()[0])
        return operands[0][index] if isinstance(operands[0], list) else operands[0]
    if each.opcode in _SAME:
        whole = operands[0] if operands else None
        # A copy that was started: the target comes first.
        return whole[0] if each.opcode == "copy-done" and whole else whole
    if each.opcode.endswith("-done"):
        return _matching(operands[0], each)
    if (place := in_place_of(module, each)) is not None and place < len(operands):
        return operands[place]
    started = each.opcode.endswith("-start")

    def build(tree: Any) -> Any:
        if isinstance(tree, list):
            return [build(part) for part in tree]
        # What is started holds its own operands besides the result.
        if started and tree in given and each.opcode != "all-reduce-start":
            return None
        name = module.op_name(each)
        buffer = Buffer(tree, module.layer(each), each.opcode, is_forward(name))
        if not name and (moved := _of(operands)):
            buffer.moved_from = moved
            buffer.forward = any(source.forward for source in moved)
            buffer.layer = moved[0].layer
        fresh.append(buffer)
        return buffer

    return build(each.result)


def _matching(started: Any, done: Instruction) -> Any:
    """Of what was started: the buffer that is the result."""
    wanted = {str(array) for array in leaves(done.result)}
    found = [buffer for buffer in _of(started) if str(buffer.array) in wanted]
    return found[-1] if len(found) == 1 else found or None


def in_place_of(module: Module, each: Instruction) -> int | None:
    """The operand whose memory the result takes; None where it has its own."""
    if each.opcode == "dynamic-update-slice":
        return 0
    update, body = _update(module, each)
    if update is None:
        return None
    target = body[update.operands[0]]
    while target.opcode == "bitcast" and target.operands[0] in body:
        target = body[target.operands[0]]
    return target.number if target.opcode == "parameter" else None


def updated(
    module: Module, each: Instruction, around: Mapping[str, Instruction]
) -> Array:
    """The part of its result that an instruction with `in_place_of` writes.

    around: the instructions of its computation.
    """
    update, body = _update(module, each)
    if update is None:  # it is one itself
        return around[each.operands[1]].arrays[0]
    return body[update.operands[1]].arrays[0]


def _update(
    module: Module, each: Instruction
) -> tuple[Instruction | None, dict[str, Instruction]]:
    """The dynamic-update-slice that gives a fusion its result, and what is around it."""
    if each.opcode != "fusion" or not each.called:
        return None, {}
    body = module.computations.get(each.called[0], {})
    root = module.root(each.called[0])
    while root.opcode in ("bitcast", "copy") and root.operands[0] in body:
        root = body[root.operands[0]]
    return (root if root.opcode == "dynamic-update-slice" else None), body


def _of(value: Any) -> list[Buffer]:
    if isinstance(value, list):
        return [buffer for part in value for buffer in _of(part)]
    return [] if value is None else [value]

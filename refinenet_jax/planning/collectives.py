"""What devices send each other in a program."""

import dataclasses
import re

from refinenet_jax.planning.hlo import Instruction, Module

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """Those of one kind and dtype.

    Attributes:
        kind: "all-reduce".
        dtype: in XLA's words.
        count: how many a step has.
        size: bytes of a step that a device puts in.
        sent: bytes of a step that a device must send at least, on a ring.
    """

    kind: str
    dtype: str
    count: int
    size: int
    sent: int


def collectives(module: Module, num_devices: int) -> list[Collective]:
    """All of a step, the most bytes first."""
    totals: dict[tuple[str, str], list[float]] = {}
    for computation, each, times in module.walk():
        kind = each.opcode.removesuffix("-start")
        if kind not in _KINDS:
            continue
        instructions = module.computations[computation]
        of_one = _group_size(each, num_devices)
        for name in each.operands:
            for array in instructions[name].arrays if name in instructions else []:
                total = totals.setdefault((kind, array.dtype), [0, 0, 0])
                total[1] += times * array.size
                total[2] += times * array.size * _share_sent(kind, of_one)
        for key in {(kind, array.dtype) for array in each.arrays} & set(totals):
            totals[key][0] += times
    found = [
        Collective(kind, dtype, int(count), int(size), round(sent))
        for (kind, dtype), (count, size, sent) in totals.items()
    ]
    return sorted(found, key=lambda each: -each.size)


def _share_sent(kind: str, devices: int) -> float:
    """Of the bytes a device puts in."""
    if kind == "all-reduce":  # a reduce-scatter, then an all-gather
        return 2 * (devices - 1) / devices
    if kind == "all-gather":  # its own part goes to each of the others
        return devices - 1
    if kind == "collective-permute":
        return 1
    return (devices - 1) / devices


def _group_size(instruction: Instruction, num_devices: int) -> int:
    """How many devices take part."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", instruction.rest):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", instruction.rest):
        return int(counted[1])
    return num_devices

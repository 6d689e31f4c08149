"""Reads the text of a compiled program: instructions, their arrays, layers and layouts."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "f8e4m3fn": 8,
    "f8e5m2": 8,
    "s16": 16,
    "u16": 16,
    "f16": 16,
    "bf16": 16,
    "s32": 32,
    "u32": 32,
    "f32": 32,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
    "c128": 128,
}
_LEAF = re.compile(r"([a-z]\w*)\[([^\]]*)\](\{[^}]*\})?")
_HEAD = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_WRAPPED = re.compile(r"^(?:jvp|transpose|vmap|jit|pjit|checkpoint|remat)\((.*)\)$")
# Of a layer, or of its place, or places, in a chain.
_SCOPE = re.compile(r"^([a-z_]+(\.\d+)*|\d+(_to_\d+)?)$")
# What jax itself puts between the scopes of a name.
_OF_JAX = {"while", "body", "cond", "closed_call", "checkpoint", "rematted_computation"}


@dataclasses.dataclass(frozen=True)
class Array:
    """The type of an array: what it holds and how it lies in memory.

    Attributes:
        dtype: in XLA's words, "bf16".
        shape: its axes.
        layout: axes from the fastest to the slowest, tiles and memory space.
    """

    dtype: str
    shape: tuple[int, ...]
    layout: str = ""

    @property
    def size(self) -> int:
        """Bytes of its values alone."""
        return math.prod(self.shape) * _BITS.get(self.dtype, 0) // 8

    @property
    def padded_size(self) -> int:
        """Bytes that it takes, with what fills up its tiles."""
        tile = re.search(r"T\((\d+(?:,\d+)*)\)", self.layout)
        if not tile or not self.shape:
            return self.size
        order = re.match(r"\{([\d,]*)", self.layout)
        minor_first = (
            [int(axis) for axis in order[1].split(",") if axis] if order else []
        )
        lengths = [self.shape[axis] for axis in minor_first]
        edges = [int(edge) for edge in reversed(tile[1].split(","))]
        for index, edge in enumerate(edges[: len(lengths)]):
            lengths[index] = -(-lengths[index] // edge) * edge
        return math.prod(lengths) * _BITS.get(self.dtype, 0) // 8

    @property
    def in_main_memory(self) -> bool:
        """Whether it is not in one of the chip's own small memories, or the host's."""
        return "S(" not in self.layout

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


Tree = Array | list["Tree"]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
        name: of its result.
        opcode: what it does, "convolution".
        result: the array, or a list of them and of further lists.
        operands: names.
        called: names of computations.
        number: of a parameter, or the value of a whole constant; -1 for all else.
        rest: all that follows the operands.
        is_root: whether its result is that of the computation.
    """

    name: str
    opcode: str
    result: Tree
    operands: tuple[str, ...]
    called: tuple[str, ...]
    number: int
    rest: str
    is_root: bool

    @property
    def arrays(self) -> list[Array]:
        """All arrays of the result."""
        return list(leaves(self.result))

    @property
    def op_name(self) -> str:
        """What it comes from, in jax's words."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.rest)
        return found[1] if found else ""

    @property
    def custom_target(self) -> str:
        """Of a custom-call: the function of a library."""
        found = re.search(r'custom_call_target="([^"]*)"', self.rest)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: computations by name, each its instructions in order by name."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def root(self, computation: str) -> Instruction:
        """The instruction whose result is that of a computation."""
        instructions = self.computations[computation]
        return next(
            (each for each in instructions.values() if each.is_root),
            list(instructions.values())[-1],
        )

    def layer(self, instruction: Instruction) -> str:
        """The layer that an instruction belongs to; "" where nothing tells."""
        return layer_of(self.op_name(instruction))

    def op_name(self, instruction: Instruction) -> str:
        """Where it comes from; of a fusion that has no name, where its result does."""
        name, called = instruction.op_name, instruction.called[:1]
        if not name and called and called[0] in self.computations:
            return self.root(called[0]).op_name
        return name

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs; 1 where that is not known.

        What has been compiled says it. Before, the loop's condition tells: it compares
        its counter, which begins with 0, with a constant.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        if condition is None or condition[1] not in self.computations:
            return 1
        root = self.root(condition[1])
        if root.opcode != "compare" or "direction=LT" not in root.rest:
            return 1
        body = self.computations[condition[1]]
        compared = [body[name] for name in root.operands]
        return max((c.number for c in compared if c.opcode == "constant"), default=1)

    def walk(
        self, computation: str = "", times: int = 1
    ) -> Iterator[tuple[str, Instruction, int]]:
        """Every instruction with its computation and how often it runs.

        Fusions are gone into; what reductions and sorts apply is not.
        """
        computation = computation or self.entry
        for each in self.computations[computation].values():
            yield computation, each, times
            if each.opcode in ("while", "fusion", "call", "conditional") or (
                each.opcode.startswith("async")
            ):
                count = times * (self.trips(each) if each.opcode == "while" else 1)
                for called in each.called:
                    if called in self.computations:
                        yield from self.walk(called, count)


def leaves(tree: Tree) -> Iterator[Array]:
    """The arrays of a result."""
    if isinstance(tree, Array):
        yield tree
    else:
        for part in tree:
            yield from leaves(part)


def layer_of(op_name: str) -> str:
    """jit(step)/transpose(jvp(decoder))/blocks.1/pooling/mul → decoder.blocks.1.pooling."""
    scopes = []
    for part in _parts(op_name)[:-1]:
        is_function = part.startswith(("jit(", "pjit("))
        while wrapped := _WRAPPED.match(part):
            part = wrapped[1]
        if not is_function and _SCOPE.match(part) and part not in _OF_JAX:
            scopes.append(part)
    return ".".join(scopes)


def is_backward(op_name: str) -> bool:
    """Whether it is of the backward pass."""
    return "transpose(jvp(" in op_name


def is_forward(op_name: str) -> bool:
    """Whether it is of the forward pass of what is differentiated."""
    return "jvp(" in op_name and not is_backward(op_name)


def _parts(name: str) -> list[str]:
    """Split at the slashes outside of parentheses."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(name):
        depth += (letter == "(") - (letter == ")")
        if letter == "/" and depth == 0:
            parts.append(name[start:position])
            start = position + 1
    return [*parts, name[start:]]


def parse(text: str) -> Module:
    """The program in XLA's text form, optimised or not."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] | None = None
    entry = ""
    for line in text.splitlines():
        if current is None:
            if line.endswith("{") and (head := _COMPUTATION.match(line)):
                current = computations.setdefault(head[2], {})
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif head := _HEAD.match(line):
            found = _instruction(line, head)
            current[found.name] = found
    return Module(computations, entry)


def _instruction(line: str, head: re.Match[str]) -> Instruction:
    result, position = _tree(line, head.end())
    opcode = _OPCODE.match(line, position)
    if opcode is None:
        raise ValueError(f"no instruction: {line[:200]}")
    end = _closing(line, opcode.end() - 1)
    rest = line[end + 1 :]
    called: list[str] = []
    for group in _CALLED.findall(rest.partition(", metadata=")[0]):
        called += re.findall(r"[\w.\-]+", group)
    inside = line[opcode.end() : end]
    is_value = opcode[1] in ("parameter", "constant")
    return Instruction(
        name=head[2],
        opcode=opcode[1],
        result=result,
        operands=() if is_value else _operands(inside),
        called=tuple(called),
        number=int(inside) if is_value and inside.isdigit() else -1,
        rest=rest,
        is_root=bool(head[1]),
    )


def _operands(text: str) -> tuple[str, ...]:
    """The names among operands, which the text may give with types or without %."""
    if "%" in text:
        return tuple(re.findall(r"%([\w.\-]+)", text))
    return tuple(re.findall(r"(?:^|, )([A-Za-z_][\w.\-]*)(?=,|$)", text))


def _closing(line: str, start: int) -> int:
    """Where the parenthesis at `start` is closed."""
    depth = 0
    for position in range(start, len(line)):
        letter = line[position]
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position
    raise ValueError(f"no closing parenthesis: {line[:200]}")


def _tree(line: str, start: int) -> tuple[Tree, int]:
    """A type and where it ends."""
    while line[start] == " ":
        start += 1
    if line[start] != "(":
        leaf = _LEAF.match(line, start)
        if leaf is None:  # token, opaque
            return Array("token", ()), line.index(" ", start)
        axes = re.findall(r"\d+", leaf[2])
        return Array(leaf[1], tuple(map(int, axes)), leaf[3] or ""), leaf.end()
    parts: list[Tree] = []
    position = start + 1
    while line[position] != ")":
        if line[position] in ", ":
            position += 1
        elif line.startswith("/*", position):
            position = line.index("*/", position) + 2
        elif line[position] == "(" or (leaf := _LEAF.match(line, position)):
            part, position = _tree(line, position)
            parts.append(part)
        else:
            parts.append(Array("token", ()))
            position = re.compile(r"[,)]").search(line, position).start()  # type: ignore[union-attr]
    return parts, position + 1

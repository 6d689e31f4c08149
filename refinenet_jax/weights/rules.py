"""How a naming of PyTorch's is written down: a rule for each kind of module.

A rule has the module's name there and its path here, and holds in both directions.
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

# A leaf of our network, such as "backbones.0.stem.conv.kernel": its shape.
Shapes = Mapping[str, tuple[int, ...]]
Arrays = Mapping[str, np.ndarray]

Kind = Literal["conv", "linear", "norm", "gamma", "layer_scale"]

# Leaf of a torch module: leaf of ours. Kernels are [out,in,h,w] there, [h,w,in,out] here;
# those of a linear layer [out,in] there and [1,1,in,out] here.
_LEAVES: Mapping[Kind, Mapping[str, str]] = {
    "conv": {"weight": "kernel", "bias": "bias"},
    "linear": {"weight": "kernel", "bias": "bias"},
    "norm": {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
    },
    # A parameter of the block itself, by its name.
    "gamma": {"gamma": "gamma"},
    "layer_scale": {"layer_scale": "gamma"},
}
# Counts training steps for a torch BatchNorm without momentum; nothing computes with it.
STEP_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of module.

    Attributes:
        torch: its name in a checkpoint. {x} is a number and {x+1} that number plus one;
            {more} is a number that is not 0.
        ours: its path in our network.
        kind: what it is.
    """

    torch: str
    ours: str
    kind: Kind = "conv"

    def our_leaf(self, key: str) -> str | None:
        """The path of the leaf that a key of a checkpoint fills, if this rule says so."""
        name, _, leaf = key.rpartition(".")
        leaves = _LEAVES[self.kind]
        path = _translate(self.torch, self.ours, name)
        return f"{path}.{leaves[leaf]}" if path and leaf in leaves else None

    def torch_key(self, leaf_path: str) -> str | None:
        """The key of a leaf of our network, if this rule says so."""
        path, _, leaf = leaf_path.rpartition(".")
        names = [torch for torch, ours in _LEAVES[self.kind].items() if ours == leaf]
        name = _translate(self.ours, self.torch, path)
        return f"{name}.{names[0]}" if name and names else None

    def step_counter(self, key: str) -> bool:
        """Whether the key is a step counter of such a module."""
        name, _, leaf = key.rpartition(".")
        is_counter = self.kind == "norm" and leaf == STEP_COUNTER
        return is_counter and _translate(self.torch, self.ours, name) is not None

    def below(self, torch_prefix: str, our_prefix: str) -> "Rule":
        """The same rule for a part of a larger network."""
        return dataclasses.replace(
            self, torch=torch_prefix + self.torch, ours=our_prefix + self.ours
        )


def conv_norm(conv: str, norm: str, ours: str) -> tuple[Rule, Rule]:
    """A convolution and its BatchNorm, which are one layer of ours."""
    return Rule(conv, f"{ours}.conv"), Rule(norm, f"{ours}.norm", "norm")


_PLACEHOLDER = re.compile(r"\{([a-z]+)(?:\+(\d+))?\}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    texts = _PLACEHOLDER.sub("\0", template).split("\0")
    return re.compile(r"(\d+)".join(map(re.escape, texts)))


@functools.cache
def _translate(template: str, other: str, name: str) -> str | None:
    """Rewrites a name of one template as the other's; None where it does not match."""
    match = _pattern(template).fullmatch(name)
    if match is None:
        return None
    numbers = {}
    for placeholder, text in zip(
        _PLACEHOLDER.finditer(template), match.groups(), strict=True
    ):
        number = int(text) - int(placeholder[2] or 0)
        if number < (1 if placeholder[1] == "more" else 0):
            return None
        numbers[placeholder[1]] = number
    return _PLACEHOLDER.sub(lambda p: str(numbers[p[1]] + int(p[2] or 0)), other)


@dataclasses.dataclass(frozen=True)
class Naming:
    """The names of one library for a backbone or a decoder.

    Attributes:
        title: how to call it in messages.
        signature: a key by which such a checkpoint is known,
        lacks: where this one is not in it.
        rules: paths are below `backbones.N` or `decoder`.
        left_out: patterns of keys that belong to it and that no RefineNet has: the
            ImageNet classifier.
        identity_expansion: the checkpoint lacks the first expansion of our
            MobileNet-v2, which then passes everything unchanged.
        more_epsilon: by how much the epsilon of its BatchNorms is above that of ours; it
            becomes part of their variances.
    """

    title: str
    signature: str
    rules: tuple[Rule, ...]
    left_out: tuple[str, ...] = ()
    lacks: str = ""
    identity_expansion: bool = False
    more_epsilon: float = 0.0

    def knows(self, keys: Collection[str]) -> bool:
        """Whether a checkpoint of these keys is named so."""
        return self.signature in keys and self.lacks not in keys

    def leaves_out(self, key: str) -> bool:
        """Whether the key is of the ImageNet classifier."""
        return any(re.fullmatch(pattern, key) for pattern in self.left_out)

"""The arrays of a network by their paths, such as "backbones.0.stem.conv.kernel".

The paths are the names in checkpoints and never change.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

_Module = TypeVar("_Module", bound=nnx.Module)

BACKBONES = "backbones"
DECODER = "decoder"
CLASSIFIER = ("decoder.classifier.kernel", "decoder.classifier.bias")


@dataclasses.dataclass(frozen=True)
class Structure(Generic[_Module]):
    """A network without its weights.

    Attributes:
        graph: modules and settings.
        others: variables that are neither weights nor statistics, such as a network's
            own dropout stream.
    """

    graph: nnx.GraphDef[_Module]
    others: nnx.State

    def merge(self, params: nnx.State, batch_stats: nnx.State) -> _Module:
        """The network with these weights; it shares no variable with another."""
        return nnx.merge(self.graph, params, batch_stats, self.others, copy=True)


def split_network(
    network: _Module,
) -> tuple[Structure[_Module], nnx.State, nnx.State]:
    """The structure, the parameters and the BatchNorm statistics of a network."""
    graph, params, batch_stats, others = nnx.split(  # type: ignore[misc]
        network, nnx.Param, nnx.BatchStat, ...
    )
    return Structure(graph, others), params, batch_stats


def weights_of(network: nnx.Module) -> nnx.State:
    """Parameters and BatchNorm statistics in one state."""
    return nnx.state(network, (nnx.Param, nnx.BatchStat))


def named_leaves(state: nnx.State) -> dict[str, nnx.Variable]:
    """Leaves of a network by path."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def replace_leaves(state: nnx.State, values: Mapping[str, jax.Array]) -> nnx.State:
    """The state with other values for some leaves, by path; all must be its own."""

    def replaced(path: tuple[Any, ...], leaf: nnx.Variable) -> nnx.Variable:
        name = ".".join(map(str, path))
        return leaf.replace(values[name]) if name in values else leaf

    return nnx.map_state(replaced, state)


def is_of_backbone(path: tuple[Any, ...]) -> bool:
    """Whether the leaf at such a path of nnx.map_state belongs to a backbone."""
    return path[0] == BACKBONES


def is_of_norm(path: tuple[Any, ...]) -> bool:
    """Whether the leaf at such a path belongs to a BatchNorm."""
    return path[-2] == "norm"


def count_parameters(network: nnx.Module) -> int:
    """Number of trained values; BatchNorm statistics are not among them.

    Example:
        network = abstract_network(Architecture("light_resnet50", num_classes=21))
        assert count_parameters(network) == 27_357_525
    """
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

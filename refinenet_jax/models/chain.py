"""Modules in a row: forgotten and computed again, or compiled once for all that are equal.

Both save something at training: memory for what the backward pass needs, or the time in
which a program is compiled. Neither changes what is computed, nor where a parameter
stands in the network.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from refinenet_jax.models.layers import FeatureMap

Remat = Literal["none", "blocks", "all"]

_Module = TypeVar("_Module", bound=nnx.Module)

# A loop costs more seconds of compilation than it saves for fewer.
_FEWEST = 8


class Recomputing(nnx.Module):
    """A module of which `in_training` may say what it forgets after the forward pass.

    Attributes:
        remat: what the backward pass computes again rather than keeps: "none" of it,
            the insides of "blocks", or "all" but the taps and what the blocks of the
            cascade give.
    """

    remat: Remat = "none"

    def set_view(self, remat: Remat | None = None) -> None:
        """Called by nnx.view."""
        if remat is not None:
            self.remat = remat


class Chain(nnx.List, Recomputing):
    """Modules that each take what the one before gives, a FeatureMap.

    Their parameters have the paths that they have in an nnx.List.

    Example:
        units = Chain([ResidualConvUnit(8, dtype=jnp.float32, rngs=rngs) for _ in range(8)])
        looped = nnx.view(units, scan_blocks=True)  # compiles one unit, not eight
        np.testing.assert_allclose(looped(x).values, units(x).values, rtol=1e-5)

    Attributes:
        scan_blocks: neighbours that are equal but for their weights run as one loop, from
            eight on.
    """

    scan_blocks: bool = False

    def set_view(
        self, remat: Remat | None = None, scan_blocks: bool | None = None
    ) -> None:
        """Called by nnx.view."""
        super().set_view(remat)
        if scan_blocks is not None:
            self.scan_blocks = scan_blocks

    def __call__(self, x: FeatureMap) -> FeatureMap:
        forgets = self.remat != "none"
        number = 0
        for equal in _neighbours(self) if self.scan_blocks else ([b] for b in self):
            if len(equal) >= _FEWEST:
                with jax.named_scope(f"{number}_to_{number + len(equal) - 1}"):
                    x = _looped(equal, x, forgets=forgets)
            else:
                for place, block in enumerate(equal, number):
                    with jax.named_scope(str(place)):
                        x = recomputed(_call, block, x, when=forgets)
            number += len(equal)
        return x


def recomputed(
    function: Callable[..., Any], module: nnx.Module, *inputs: Any, when: bool = True
) -> Any:
    """function(module, *inputs), of which the backward pass keeps the inputs only.

    What the module's BatchNorm layers gather is kept in it. when: False calls the
    function and no more.
    """
    if not when:
        return function(module, *inputs)
    graph, state = nnx.split(module)
    pure = jax.checkpoint(_pure(function, graph))
    result, statistics = pure(state, *inputs)
    nnx.update(module, statistics)
    return result


def _call(module: Any, x: FeatureMap) -> Any:
    return module(x)


def _pure(
    function: Callable[..., Any], graph: nnx.GraphDef[Any]
) -> Callable[..., tuple[Any, nnx.State]]:
    """(state of a module, inputs) → (result, BatchNorm statistics afterwards)."""

    def pure(state: nnx.State, *inputs: Any) -> tuple[Any, nnx.State]:
        module = nnx.merge(graph, state, copy=True)
        result = function(module, *inputs)
        return result, nnx.state(module, nnx.BatchStat)

    return pure


def _neighbours(blocks: Iterable[_Module]) -> list[list[_Module]]:
    """The blocks in order, those together that differ in their values alone."""

    def kind(block: nnx.Module) -> tuple[Any, ...]:
        graph, state = nnx.split(block)
        return graph, tuple((x.shape, x.dtype) for x in jax.tree.leaves(state))

    return [list(group) for _, group in itertools.groupby(blocks, kind)]


def _looped(
    blocks: Sequence[nnx.Module], x: FeatureMap, *, forgets: bool
) -> FeatureMap:
    """Equal blocks, one after the other: a loop over their stacked weights."""
    graph, _ = nnx.split(nnx.view(blocks[0], in_loop=True, raise_if_not_found=False))
    states = [nnx.state(block) for block in blocks]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    pure = _pure(_call, graph)
    if forgets:
        # In a loop nothing is there that the compiler could merge it with again.
        pure = jax.checkpoint(pure, prevent_cse=False)
    x, statistics = lax.scan(lambda x, state: pure(state, x), x, stacked)
    for index, block in enumerate(blocks):
        nnx.update(block, jax.tree.map(lambda leaf, i=index: leaf[i], statistics))
    return x

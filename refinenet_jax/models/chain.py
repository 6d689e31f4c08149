"""Modules in a row, whose insides training may forget and compute again.

That saves memory for what the backward pass needs, and changes neither what is computed
nor where a parameter stands in the network.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import nnx

from refinenet_jax.models.layers import FeatureMap

Remat = Literal["none", "blocks", "all"]


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
        frugal = nnx.view(units, remat="blocks")
        np.testing.assert_allclose(frugal(x).values, units(x).values, rtol=1e-5)
    """

    def __call__(self, x: FeatureMap) -> FeatureMap:
        forgets = self.remat != "none"
        for number, block in enumerate(self):
            with jax.named_scope(str(number)):
                x = recomputed(_call, block, x, when=forgets)
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

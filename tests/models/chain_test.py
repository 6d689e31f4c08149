"""Blocks in a row, with and without their insides kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.models.chain import Chain
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.leaves import named_leaves
from refinenet_jax.models.resnet import BlockForm


def a_chain(count=4, width=2):
    """A block with a shortcut, then equal ones, all with scales other than zero."""
    form, rngs = BlockForm(expands=True, dtype=jnp.float32), nnx.Rngs(0)
    made = Chain(
        form.block(channels, width, 1, rngs=rngs)
        for channels in (3, *[4 * width] * count)
    )
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), nnx.state(made)
    )
    nnx.update(made, state)
    return made


def outcome(blocks, x, **view):
    """Output, gradients and BatchNorm statistics."""
    graph, params, statistics = nnx.split(
        nnx.view(blocks, **view), nnx.Param, nnx.BatchStat
    )

    def loss(params, values):
        module = nnx.merge(graph, params, statistics, copy=True)
        output = module(x.with_values(values))
        return (output.filled(0) ** 2).mean(), (
            output,
            nnx.state(module, nnx.BatchStat),
        )

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    return gradient(params, x.values)


def assert_close(found, expected):
    """Beside the largest value of any leaf: some gradients are but rounding."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        # Measured: at most 1.2e-6, with jax 0.12.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_computed_again_is_the_same(frozen):
    blocks = a_chain()
    values = np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype(np.float32)
    x = FeatureMap(jnp.asarray(values), jnp.array([[6, 3], [4, 5]]))
    before = {name: np.array(v) for name, v in named_leaves(nnx.state(blocks)).items()}
    expected = outcome(blocks, x, use_running_average=frozen)
    found = outcome(blocks, x, use_running_average=frozen, remat="blocks")
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)
    statistics = named_leaves(found[1][1])
    unchanged = [np.array_equal(v[...], before[name]) for name, v in statistics.items()]
    assert all(unchanged) if frozen else not any(unchanged)


def test_paths_are_those_of_a_list():
    names = set(named_leaves(nnx.state(a_chain(1))))
    assert {"0.shortcut.conv.kernel", "1.layers.2.norm.scale"} <= names

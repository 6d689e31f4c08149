"""Blocks in a row, in every way to run them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.models import chain
from refinenet_jax.models.chain import Chain
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.leaves import named_leaves
from refinenet_jax.models.resnet import BlockForm

FORMS = [
    {"remat": "blocks"},
    {"scan_blocks": True},
    {"scan_blocks": True, "remat": "blocks"},
]


@pytest.fixture(autouse=True)
def loops_soon(monkeypatch):
    monkeypatch.setattr(chain, "_FEWEST", 3)


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


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form, frozen):
    blocks = a_chain()
    values = np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype(np.float32)
    x = FeatureMap(jnp.asarray(values), jnp.array([[6, 3], [4, 5]]))
    before = {name: np.array(v) for name, v in named_leaves(nnx.state(blocks)).items()}
    expected = outcome(blocks, x, use_running_average=frozen)
    found = outcome(blocks, x, use_running_average=frozen, **form)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)
    statistics = named_leaves(found[1][1])
    unchanged = [np.array_equal(v[...], before[name]) for name, v in statistics.items()]
    assert all(unchanged) if frozen else not any(unchanged)


def test_paths_are_those_of_a_list():
    names = set(named_leaves(nnx.state(a_chain(1))))
    assert {"0.shortcut.conv.kernel", "1.layers.2.norm.scale"} <= names


def test_a_loop_has_one_block_for_all_that_are_equal():
    def convolutions(**view):
        blocks = nnx.view(a_chain(), use_running_average=True, **view)
        graph, state = nnx.split(blocks)
        call = jax.jit(lambda state, x: nnx.merge(graph, state)(FeatureMap(x)).values)
        lowered = call.lower(state, jnp.zeros((1, 4, 4, 3)))
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions() == 5
    assert convolutions(scan_blocks=True) == 2

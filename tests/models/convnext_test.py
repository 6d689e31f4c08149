import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch", reason="the block is compared with torch's")

from refinenet_jax.models.convnext import ConvNeXtBlock
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.leaves import named_leaves, replace_leaves
from refinenet_jax.weights.convnext_tables import TIMM_CONVNEXT
from tests import torch_backbones

CHANNELS = 8
OURS, THEIRS = "stages.0.0.", "stages.0.blocks.0."


def key_of(leaf):
    """The name in timm's block of a leaf of ours."""
    keys = (rule.torch_key(OURS + leaf) for rule in TIMM_CONVNEXT.rules)
    return next(filter(None, keys)).removeprefix(THEIRS)


def as_ours(tensor):
    """A parameter, or its gradient, as ours is laid out."""
    array = tensor.detach().numpy()
    if array.ndim == 2:
        return array.T[None, None]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


@pytest.mark.slow
def test_a_block_and_its_gradients_equal_torch():
    torch.manual_seed(0)
    theirs = torch_backbones.ConvNeXtBlock(CHANNELS)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 0.2, 0.3)
    ours = ConvNeXtBlock(CHANNELS, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graph, state = nnx.split(ours)
    parameters = dict(theirs.named_parameters())
    state = replace_leaves(
        state,
        {
            leaf: jnp.asarray(as_ours(parameters[key_of(leaf)]))
            for leaf in named_leaves(state)
        },
    )
    x = torch.randn(2, CHANNELS, 9, 6)
    expected = theirs(x)
    expected.sin().sum().backward()

    @jax.jit
    def run(state, x):
        def total(state):
            y = nnx.merge(graph, state)(FeatureMap(x)).values
            return jnp.sin(y).sum(), y

        (_, y), gradient = jax.value_and_grad(total, has_aux=True)(state)
        return y, gradient

    y, gradient = run(state, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(
        y, expected.detach().permute(0, 2, 3, 1), rtol=0, atol=1e-4
    )
    found = named_leaves(gradient)
    assert {key_of(leaf) for leaf in found} == parameters.keys()
    for leaf, value in found.items():
        theirs_of = as_ours(parameters[key_of(leaf)].grad)
        largest = np.abs(theirs_of).max()
        assert largest > 0
        np.testing.assert_allclose(value[...], theirs_of, rtol=0, atol=1e-4 * largest)

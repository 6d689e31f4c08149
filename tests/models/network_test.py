import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch", reason="the networks are compared with torch's")

from refinenet_jax.models import FeatureMap, RefineNet, in_training
from tests.architectures import compiled
from tests.models.buckets import assert_equal_inside, bucketed
from tests.torch_reference import pictures, reference_and_ours, to_nhwc

# As a share of the largest logit. Measured on an x86 CPU: at most 2.1e-6.
PADDING_ERROR = 5e-6


@pytest.mark.first_cases(1)
@pytest.mark.parametrize(
    ("variant", "input_scales"),
    [
        ("light_resnet18", (1.0,)),
        ("light_resnet18", (1.2,)),
        ("light_resnet18", (1.2, 0.6)),
        ("light_mobilenet_v2", (1.0,)),
        ("light_efficientnet_lite0", (1.0,)),
        ("light_mobilenet_v3_large", (1.0,)),
        ("light_resnet50d", (1.0,)),
        ("light_convnext_tiny", (1.0,)),
        ("light_efficientnet_b0", (1.0,)),
    ],
)
def test_a_padded_picture_gives_what_torch_gives_for_it_alone(variant, input_scales):
    network, ours = reference_and_ours(variant, input_scales=input_scales)
    graph, state = nnx.split(ours)
    traces = []

    @jax.jit
    def score(state: nnx.State, image: FeatureMap) -> FeatureMap:
        traces.append(image.values.shape)
        return nnx.merge(graph, state).forward(image)

    # Odd and even lengths side by side: they have other borders in EfficientNet.
    for sizes in ([(96, 65), (41, 131)], [(77, 98), (96, 131)]):
        images = [pictures(1, *size, seed=7) for size in sizes]
        result = score(state, bucketed([to_nhwc(image) for image in images], (96, 131)))
        for i, image in enumerate(images):
            with torch.no_grad():
                alone = to_nhwc(network(image))
            assert_equal_inside(result, i, alone, PADDING_ERROR)
    assert len(traces) == 1


@pytest.mark.slow
def test_frozen_statistics_keep_every_bit_in_training():
    _, network = reference_and_ours("light_resnet18")
    before = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))

    @nnx.jit
    def train(network: RefineNet, image: jax.Array, rngs: nnx.Rngs):
        view = in_training(network, frozen_statistics=True)
        return view.forward(FeatureMap(image), rngs=rngs).values

    train(network, jnp.zeros((2, 33, 50, 3)), nnx.Rngs(dropout=0))
    after = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_keeps_its_parameters():
    reference, network = reference_and_ours("light_resnet18", "bfloat16")
    image = pictures(2, 65, 98, seed=1)
    with torch.no_grad():
        expected = to_nhwc(reference(image))
    leaves = jax.tree.leaves(nnx.state(network))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}

    logits = compiled(network, jnp.asarray(to_nhwc(image)))
    assert logits.dtype == jnp.float32
    difference = np.abs(np.asarray(logits) - expected) / np.abs(expected).max()
    # One rounding to the 8 bits of bfloat16 errs by up to 0.4%; below 1e-4 nothing
    # would have been rounded. Measured: 0.9% at most, 0.17% on average.
    assert 1e-4 < difference.max() < 0.02
    assert difference.mean() < 0.004

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from refinenet_jax.models.build import VARIANTS, build
from refinenet_jax.models.layers import FeatureMap
from tests.torch_reference import copy_to_network, fill, pictures, reference

# The largest difference as a share of the largest value. Measured with jax 0.10.2 and
# torch 2.13.0 on an x86 CPU: at most 3.1e-6 in the taps (the fourth of ResNet-152) and
# 1.9e-6 in the logits. The rest is room for another CPU's order of summation.
TOLERANCE = 1e-5


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """[B,C,H,W] → [B,H,W,C]."""
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def relative_error(ours: jax.Array, reference: torch.Tensor) -> float:
    expected = to_numpy(reference)
    assert ours.shape == expected.shape
    return float(np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("variant", VARIANTS)
def test_taps_and_logits_equal_torch(variant):
    network = reference(variant, 21)
    fill(network, seed=0)
    # Odd sizes at every stage: 97×131, 49×66, 25×33, 13×17, 7×9, 4×5.
    image = pictures(2, 97, 131, seed=1)
    with torch.no_grad():
        expected_taps = network.taps(image)
        expected = network.refine(expected_taps)

    ours = nnx.eval_shape(
        lambda: build(variant, 21, input_scale=1.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    copy_to_network(network.state_dict(), ours)
    del network
    graph, state = nnx.split(
        nnx.view(ours, deterministic=True, use_running_average=True)
    )
    del ours

    @jax.jit
    def forward(state: nnx.State, image: jax.Array):
        # Not ours(image): the backbone would be compiled twice.
        ours = nnx.merge(graph, state)
        taps = ours.backbone(FeatureMap(image))
        return [tap.values for tap in taps], ours.decoder(taps).values

    taps, logits = forward(state, jnp.asarray(to_numpy(image)))
    errors = [
        relative_error(*pair) for pair in zip(taps, expected_taps, strict=True)
    ] + [relative_error(logits, expected)]
    # The next network should find the memory of this one free.
    del taps, logits, state, forward
    gc.collect()
    assert max(errors) < TOLERANCE, errors
    # A comparison with a network that has died out would prove nothing.
    assert expected.std() > 0.5


def test_every_weight_of_the_reference_counts():
    network = reference("resnet50", 21)
    fill(network, seed=0)
    network(pictures(2, 33, 50, seed=1)).square().sum().backward()
    silent = [
        key
        for key, weight in network.named_parameters()
        if not weight.grad.abs().max() > 1e-3
    ]
    assert silent == []

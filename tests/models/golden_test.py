"""Our networks against logits that torch computed once; needs no torch."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.models import RefineNet, in_inference
from refinenet_jax.models.leaves import named_leaves
from refinenet_jax.weights.mapping import export_weights
from tests.architectures import abstract_network, architecture, compiled, set_weights
from tests.golden.weights import NUM_CLASSES, VARIANTS, picture, weights

FOLDER = Path(__file__).parent.parent / "golden"
LARGE = ("resnet50", "resnet101", "light_resnet101")


def filled_network(variant: str) -> RefineNet:
    network = abstract_network(architecture(variant, NUM_CLASSES))
    leaves = named_leaves(nnx.state(network))
    # Bytes: only their names and shapes matter.
    empty = {name: np.zeros(leaf.shape, np.int8) for name, leaf in leaves.items()}
    exported = export_weights(empty, variant)
    shapes = {key: array.shape for key, array in exported.items()}
    set_weights(network, weights(shapes), variant)
    return in_inference(network)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=pytest.mark.slow if variant in LARGE else ())
        for variant in VARIANTS
    ],
)
def test_logits_are_those_of_torch(variant):
    with np.load(FOLDER / f"{variant}.npz") as file:
        expected = file["logits"]
    assert expected.std((1, 2)).min() > 0.5
    logits = compiled(filled_network(variant), jnp.asarray(picture()))
    assert logits.shape == expected.shape
    # Measured: at most 4.2e-6 of the largest.
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * largest)

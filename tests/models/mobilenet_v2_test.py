import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the backbone is compared with torch's")

from refinenet_jax.models.layers import FeatureMap
from tests.architectures import (
    abstract_network,
    architecture,
    compiled,
    in_inference,
)
from tests.torch_reference import (
    TorchvisionMobileNetV2,
    copy_to_network,
    fill,
    pictures,
    to_nhwc,
)


def test_torchvision_weights_give_the_taps_of_torchvision():
    """Their first block does not expand; ours expands by an identity."""
    theirs = TorchvisionMobileNetV2()
    fill(theirs, seed=0)
    image = pictures(2, 97, 131, seed=1)
    with torch.no_grad():
        expected = theirs.taps(image)

    network = abstract_network(architecture("light_mobilenet_v2"))
    copy_to_network(theirs.state_dict(), network, "light_mobilenet_v2")
    (backbone,) = in_inference(network).backbones
    taps = compiled(backbone, FeatureMap(jnp.asarray(to_nhwc(image))))
    for tap, tensor in zip(taps, expected, strict=True):
        largest = float(tensor.abs().max())
        # Measured: at most 5.3e-6 of the largest.
        np.testing.assert_allclose(
            tap.values, to_nhwc(tensor), rtol=0, atol=2e-5 * largest
        )
    assert [tap.values.shape[-1] for tap in taps] == list(backbone.tap_channels)
    assert backbone.tap_strides == (4, 8, 16, 16, 32, 32)

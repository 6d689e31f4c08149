import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.resize import resize
from refinenet_jax.training.losses import cross_entropy, nearest


def test_by_hand_at_the_resolution_of_the_prediction():
    # Two classes, log-odds 0 and log(3): -log of 1/2 and of 3/4.
    logits = jnp.asarray([[[[0.0, 0.0], [0.0, np.log(3.0)]]]])
    label = jnp.asarray([[[0, 1]]], jnp.uint8)
    loss = cross_entropy(logits, label, "prediction")
    assert float(loss) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2, rel=1e-6)


def test_ignored_pixels_count_neither_above_nor_below():
    logits = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 3, 5, 4)), jnp.float32
    )
    label = np.random.default_rng(1).integers(0, 4, (2, 3, 5)).astype(np.uint8)
    label[0, :, :3] = 255
    values = np.asarray(logits, np.float64)
    log_share = values - np.log(np.exp(values).sum(-1, keepdims=True))
    picked = [
        log_share[index][label[index]]
        for index in np.ndindex(label.shape)
        if label[index] != 255
    ]
    loss = cross_entropy(logits, jnp.asarray(label), "prediction")
    assert float(loss) == pytest.approx(-np.mean(picked), rel=1e-6)


def test_no_valid_pixel_gives_zero():
    label = jnp.full((1, 4, 6), 255, jnp.uint8)
    assert float(cross_entropy(jnp.ones((1, 2, 3, 5)), label, "prediction")) == 0
    assert float(cross_entropy(jnp.ones((1, 2, 3, 5)), label, "label")) == 0


def test_at_the_resolution_of_the_label_as_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 8, 4)).astype(np.float32)
    label = rng.integers(0, 4, (2, 17, 29)).astype(np.uint8)
    label[0, 3:9] = 255
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(logits).permute(0, 3, 1, 2),
        size=label.shape[1:],
        mode="bilinear",
        align_corners=False,
    )
    expected = torch.nn.functional.cross_entropy(
        enlarged, torch.from_numpy(label).long(), ignore_index=255
    )
    loss = cross_entropy(jnp.asarray(logits), jnp.asarray(label), "label")
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def plain(logits, label):
    """The loss at the size of the label, enlarged at once."""
    enlarged = resize(FeatureMap(logits), label.shape[1:], None, "bilinear").values
    return cross_entropy(enlarged, label, "prediction")


@pytest.mark.slow
# Bands of 64 rows: one that is not full, one, two, and two that are not full.
@pytest.mark.parametrize("height", [5, 64, 128, 67])
def test_a_band_at_a_time_is_as_all_at_once(height):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 9, 6, 4)), jnp.float32)
    label = rng.integers(0, 4, (2, height, 21)).astype(np.uint8)
    label[0, 3:5] = 255
    expected = jax.value_and_grad(plain)(logits, jnp.asarray(label))
    found = jax.value_and_grad(cross_entropy)(logits, label, "label")
    # Measured: at most 5.4e-7 and 3e-9.
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        cross_entropy(logits, label, "label"), found[0], rtol=1e-6
    )


@pytest.mark.slow
def test_bands_are_of_all_devices_that_share_the_rows():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 8, 6, 3)), jnp.float32)
    label = jnp.asarray(rng.integers(0, 3, (2, 256, 24)), jnp.uint8)
    expected = jax.value_and_grad(cross_entropy)(logits, label, "label")
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "rows"))
    split = NamedSharding(mesh, PartitionSpec("data", "rows"))
    found = jax.jit(
        jax.value_and_grad(functools.partial(cross_entropy, resolution="label")),
        in_shardings=(split, split),
    )(logits, label)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-8)


def test_nearest_picks_pixel_centres():
    label = jnp.arange(8, dtype=jnp.uint8).reshape(1, 1, 8)
    assert nearest(label, (1, 2)).tolist() == [[[2, 6]]]
    assert nearest(label, (2, 8)).tolist() == [[list(range(8))] * 2]

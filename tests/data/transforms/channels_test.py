"""Pictures of any channels: what happens to all of them is what happens to each."""

import numpy as np
import pytest

from refinenet_jax.data.transforms import (
    ClampShortEdge,
    ColourJitter,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScale,
    transformed,
)
from refinenet_jax.errors import UserError

HEIGHT, WIDTH = 37, 52


def picture(channels, dtype):
    rng = np.random.default_rng(channels)
    image = rng.random((HEIGHT, WIDTH, channels)) * 250
    label = rng.integers(0, 5, (HEIGHT, WIDTH)).astype(np.uint8)
    return {"image": image.astype(dtype), "label": label}


def channel_of(example, index):
    image = np.ascontiguousarray(example["image"][..., index : index + 1])
    return {**example, "image": image}


def chain(fill, scales):
    return (
        ClampShortEdge(20, 400),
        RandomScale(*scales, 0.0),
        RandomRotation(25.0, fill),
        RandomFlip(0.5),
        RandomCrop(41, 33, fill),
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 16])
@pytest.mark.parametrize("scales", [(0.2, 0.5), (0.6, 2.0)])
def test_each_channel_is_moved_as_if_it_were_alone(channels, dtype, scales):
    example = picture(channels, dtype)
    fill = tuple(range(10, 10 + channels))

    def seen(example, fill, seed):
        rng = np.random.default_rng(seed)
        return transformed(example, chain(fill, scales), rng).render()

    for seed in range(3):
        whole = seen(example, fill, seed)
        assert whole["image"].dtype == dtype
        assert whole["image"].shape == (41, 33, channels)
        for index in range(channels):
            alone = seen(channel_of(example, index), fill[index : index + 1], seed)
            found, expected = whole["image"][..., index], alone["image"][..., 0]
            if dtype == "float32":  # OpenCV multiplies and adds in one step or in two
                np.testing.assert_allclose(found, expected, rtol=1e-6)
            else:
                np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(whole["label"], alone["label"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_blur_is_of_each_channel(dtype):
    example, blur = picture(6, dtype), RandomBlur(2.0)
    whole = blur(example, np.random.default_rng(3))["image"]
    assert whole.dtype == dtype
    for index in range(6):
        alone = blur(channel_of(example, index), np.random.default_rng(3))["image"]
        # In float32 OpenCV adds in another order for several channels.
        np.testing.assert_allclose(
            whole[..., index], alone[..., 0], rtol=1e-6, atol=1e-4
        )


def test_numbers_beyond_8_bits_are_kept():
    example = picture(1, "uint16")
    example["image"] = (example["image"].astype(np.uint32) * 257).astype(np.uint16)
    crop = RandomCrop(60, 70, (40_000,))
    found = crop(example, np.random.default_rng(0))["image"]
    assert found.max() > 60_000
    assert (found[found[..., 0] == 40_000].size) >= 60 * 70 - HEIGHT * WIDTH


def test_colours_are_changed_of_rgb_alone():
    jitter = ColourJitter(0.1, 0.0, 0.0, 0.0)
    for channels, dtype in ((1, "uint8"), (3, "uint16"), (6, "float32")):
        with pytest.raises(UserError, match="has no colours to change"):
            jitter(picture(channels, dtype), np.random.default_rng(0))

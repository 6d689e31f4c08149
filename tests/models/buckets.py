"""Pictures of several sizes in one padded batch, and what must hold for each."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from refinenet_jax.models.layers import FeatureMap


def bucketed(images: Sequence[np.ndarray], bucket: tuple[int, int]) -> FeatureMap:
    """Images [1,h,w,C] of any size as one batch; the padding is NaN.

    One look at the padding makes a result NaN.
    """
    height, width = bucket
    batch = [
        np.pad(
            image,
            [(0, 0), (0, height - image.shape[1]), (0, width - image.shape[2]), (0, 0)],
            constant_values=np.nan,
        )
        for image in images
    ]
    sizes = jnp.array([image.shape[1:3] for image in images], jnp.int32)
    return FeatureMap(jnp.concatenate(batch), sizes)


def assert_equal_inside(
    result: FeatureMap, index: int, alone: np.ndarray | jax.Array, tolerance: float
) -> None:
    """One picture of a padded batch is what it is alone, [1,h,w,C].

    tolerance: of the difference, as a share of the largest value.
    """
    height, width = alone.shape[1:3]
    assert result.size is not None
    assert result.size[index].tolist() == [height, width]
    inside = result.values[index : index + 1, :height, :width]
    largest = np.abs(alone).max()
    np.testing.assert_allclose(inside, alone, rtol=0, atol=tolerance * largest)

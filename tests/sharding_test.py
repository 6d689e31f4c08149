import jax
import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.sharding import check_batch_size, global_layout, to_devices


def test_a_batch_is_split_over_the_devices():
    layout = global_layout()
    assert layout.num_devices == jax.device_count() == 4
    batch = {"image": np.arange(8 * 3 * 5, dtype=np.uint8).reshape(8, 3, 5)}
    image = to_devices(batch, layout)["image"]
    assert [s.data.shape for s in image.addressable_shards] == [(2, 3, 5)] * 4
    assert np.array_equal(image, batch["image"])


def test_a_batch_that_the_devices_cannot_share():
    layout = global_layout()
    check_batch_size("train.batch_size", 12, layout)
    with pytest.raises(
        UserError,
        match="config.train.batch_size=10 must be a multiple of the 4 devices",
    ):
        check_batch_size("train.batch_size", 10, layout)

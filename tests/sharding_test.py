import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from refinenet_jax.errors import UserError
from refinenet_jax.sharding import (
    Layout,
    check_batch_size,
    check_row_shards,
    global_layout,
    to_devices,
)


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
    check_batch_size("train.batch_size", 24, layout, parts=3)
    with pytest.raises(UserError, match="4 devices times the 3 of .*such as 24"):
        check_batch_size("train.batch_size", 20, layout, parts=3)


def test_large_arrays_are_divided_where_an_axis_can_be():
    layout = Layout.over(jax.devices(), divides_state=True)
    shapes = {
        "kernel": (3, 3, 64, 128),
        "last": (7, 7, 3, 64),
        "odd": (3, 3, 63, 127),
        "few": (64, 16),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, "f4") for name, shape in shapes.items()}
    specs = {name: s.spec for name, s in layout.state_shardings(tree).items()}
    assert specs == {
        "kernel": P(None, None, None, "data"),
        "last": P(None, None, None, "data"),
        "odd": P(),
        "few": P(),
    }
    whole = Layout.over(jax.devices()).state_shardings(tree)
    assert {sharding.spec for sharding in whole.values()} == {P()}


def test_neighbours_share_a_picture():
    layout = Layout.over(jax.devices(), row_shards=2)
    assert (layout.num_devices, layout.batch_shards, layout.row_shards) == (4, 2, 2)
    batch = {"image": np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)}
    image = to_devices(batch, layout)["image"]
    found = {s.device: s.data.tolist() for s in image.addressable_shards}
    rows = batch["image"].reshape(4, 1, 2, 5).tolist()
    assert list(map(found.get, jax.devices())) == rows


def test_a_picture_that_devices_cannot_share():
    check_row_shards("train.row_shards", 2, jax.devices())
    with pytest.raises(
        UserError,
        match="config.train.row_shards=3 must divide the 4 devices .*: one of 1, 2, 4",
    ):
        check_row_shards("train.row_shards", 3, jax.devices())
    layout = Layout.over(jax.devices(), row_shards=4)
    check_batch_size("train.batch_size", 3, layout)
    with pytest.raises(UserError, match="the 4 devices by 2 that share a picture"):
        check_batch_size(
            "train.batch_size", 3, Layout.over(jax.devices(), row_shards=2)
        )

"""Pictures that say where each of their pixels came from."""

import numpy as np

from refinenet_jax.data.transforms import Example, Transform

FILL = (124, 116, 104)


def picture(height: int = 44, width: int = 60) -> Example:
    """The label is the column; red is four times the column, green four times the row.

    At most 62 rows and columns fit into a byte.
    """
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([4 * columns, 4 * rows, np.full_like(rows, 77)], axis=-1)
    return {
        "image": image.astype(np.uint8),
        "label": columns.astype(np.uint8),
        "name": "x",
    }


def assert_same_again_and_input_left_alone(transform: Transform) -> None:
    """The same generator gives the same result; also: what every result must be."""
    given = picture()
    first = transform(given, np.random.default_rng(3))
    again = transform(picture(), np.random.default_rng(3))
    for key in ("image", "label"):
        np.testing.assert_array_equal(first[key], again[key])
        np.testing.assert_array_equal(given[key], picture()[key])
        assert first[key].dtype == np.uint8
        assert first[key].flags.c_contiguous
    assert first["name"] == "x"
    assert first["image"].shape == (*first["label"].shape, 3)

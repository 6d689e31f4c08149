import io

import numpy as np
from PIL import Image

from refinenet_jax import pictures

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 100, 50))
LABEL = np.asarray([[0, 1, 2], [255, 2, 1]], np.uint8)


def test_palette_png_holds_the_class_ids():
    picture = Image.open(io.BytesIO(pictures.palette_png(LABEL, PALETTE)))
    assert picture.mode == "P"
    assert np.asarray(picture).tolist() == LABEL.tolist()
    assert np.asarray(picture.convert("RGB"))[0, 1].tolist() == [200, 0, 0]


def test_overlay_mixes_by_hand():
    image = np.full((2, 3, 3), 100, np.uint8)
    mixed = pictures.overlay(image, LABEL, PALETTE)
    assert mixed[0, 1].tolist() == [150, 50, 50]
    assert mixed[0, 0].tolist() == [50, 50, 50]


def test_strip_has_one_row_for_each_example():
    rows = [
        (np.full((2, 3, 3), 9, np.uint8), LABEL, LABEL),
        (
            np.full((5, 2, 3), 8, np.uint8),
            np.zeros((5, 2), np.uint8),
            np.ones((5, 2), np.uint8),
        ),
    ]
    strip = pictures.strip(rows, PALETTE)
    assert strip.shape == (7, 9, 3)
    assert strip[0, 3:6].tolist() == pictures.colours(LABEL, PALETTE)[0].tolist()
    assert strip[2:, 6:8].tolist() == [[[200, 0, 0]] * 2] * 5


def test_encoded_image_reads_back():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    decoded = np.asarray(Image.open(io.BytesIO(pictures.encode(image, "PNG"))))
    assert decoded.tolist() == image.tolist()

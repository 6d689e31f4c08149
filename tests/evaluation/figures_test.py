"""Nothing drawn may touch the edge of a figure: there it would be cut off."""

import numpy as np
import pytest

from refinenet_jax.evaluation import figures

LONG = "a class whose name has forty characters "


def names_of(number):
    names = [f"class {index}" for index in range(number)]
    names[1] = names[-1] = LONG
    names[0] = "$x$ & <b>"
    return names


def assert_whole(pixels):
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()
    assert (pixels != 255).any()


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("number", [3, 21, 150])
def test_class_bars(number):
    rng = np.random.default_rng(number)
    values = dict(zip(names_of(number), rng.random(number).tolist(), strict=True))
    spans = {name: [0.9 * v, min(1, 1.1 * v)] for name, v in values.items()}
    values["$x$ & <b>"] = spans["$x$ & <b>"] = None
    assert_whole(figures.class_bars(values, spans))
    assert_whole(figures.class_bars(values, None))


def test_class_bars_are_as_long_as_the_scores_and_sorted():
    drawn = figures.class_bars({"a": 0.25, "b": None, "c": 1.0, "d": 0.5}, None)
    blue = (drawn == (0x3B, 0x6F, 0xB5)).all(axis=-1).sum(axis=1)
    starts = np.flatnonzero((blue[1:] > 0) & (blue[:-1] == 0))
    lengths = [int(blue[start + 5]) for start in starts]
    assert len(lengths) == 3
    assert np.divide(lengths, lengths[0]) == pytest.approx([1, 0.5, 0.25], abs=0.01)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("number", [3, 21, 150])
def test_confusion(number):
    matrix = np.random.default_rng(0).integers(0, 99, (number, number))
    matrix[2] = 0
    drawn = figures.confusion(matrix, names_of(number))
    assert_whole(drawn)
    assert min(drawn.shape[:2]) > 16 * number  # pixels: a line of text for each class
    grey = (drawn == 0xDD).all(axis=-1).sum()
    assert grey > 0  # the row without pixels


def test_trimap():
    curve = {
        "radii": [1, 2, 4],
        "mean_iou": [None, 0.5, 0.6],
        "pixel_accuracy": [None, 0.7, 0.8],
    }
    assert_whole(figures.trimap(curve, {"mean_iou": 0.7, "pixel_accuracy": 0.9}))


@pytest.mark.parametrize("shape", [(20, 30), (300, 60), (40, 400)])
def test_example(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    label = rng.choice([0, 1, 2, 29, 255], shape).astype(np.uint8)
    palette = rng.integers(0, 250, (30, 3)).tolist()
    prediction = rng.integers(0, 30, shape).astype(np.uint8)
    drawn = figures.example(image, label, prediction, names_of(30), palette)
    assert_whole(drawn)


def test_an_example_of_ignored_pixels_only():
    image = np.zeros((20, 30, 3), np.uint8)
    label = np.full((20, 30), 255, np.uint8)
    assert_whole(figures.example(image, label, label, ["a"], [(1, 2, 3)]))


def test_errors_by_hand():
    image = np.full((1, 3, 3), 100, np.uint8)
    label = np.asarray([[1, 1, 255]], np.uint8)
    prediction = np.asarray([[1, 0, 0]], np.uint8)
    red = list(figures._WRONG)
    assert figures.errors(image, label, prediction).tolist() == [
        [[160, 160, 160], red, [255, 255, 255]]
    ]

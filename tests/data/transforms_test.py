import cv2
import numpy as np
import pytest

from refinenet_jax.data.transforms import (
    ClampShortEdge,
    RandomCrop,
    RandomFlip,
    RandomScale,
)

FILL = (124, 116, 104)


def example(height: int = 44, width: int = 60) -> dict:
    """A picture that says where each pixel came from, and which label it has.

    The label is the column; the image's channels are four times the column, four
    times the row, and a constant.
    """
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([4 * columns, 4 * rows, np.full_like(rows, 77)], axis=-1)
    return {
        "image": image.astype(np.uint8),
        "label": columns.astype(np.uint8),
        "name": "x",
    }


def misalignment(result: dict) -> np.ndarray:
    """Image minus label, in columns, where there is a picture."""
    inside = result["label"] != 255
    column = result["image"][..., 0][inside] / 4
    return column - result["label"][inside]


TRANSFORMS = [
    # The nearest column is at most 0.5 away; the image is rounded to 1/8 column, and a
    # mean over a fraction of a pixel (INTER_AREA) is up to 1/8 off the centre.
    (ClampShortEdge(80, 200), 0.63),
    (ClampShortEdge(10, 31), 0.76),
    (RandomScale(0.5, 2.0), 0.76),
    (RandomScale(1.0, 2.0), 0.63),
    (RandomFlip(0.5), 0.0),
    (RandomCrop(30, 41, FILL), 0.0),
    (RandomCrop(50, 41, FILL), 0.0),
    (RandomCrop(64, 80, FILL), 0.0),
]


@pytest.mark.parametrize(("transform", "bound"), TRANSFORMS)
def test_image_and_label_stay_aligned(transform, bound):
    for seed in range(200):
        rng = np.random.default_rng(seed)
        given = example(int(rng.integers(30, 60)), int(rng.integers(30, 60)))
        result = transform(given, rng)
        assert result["image"].shape == (*result["label"].shape, 3)
        assert result["image"].dtype == result["label"].dtype == np.uint8
        assert result["image"].flags.c_contiguous and result["label"].flags.c_contiguous
        assert result["name"] == "x"
        assert np.abs(misalignment(result)).max() <= bound
        assert set(np.unique(result["label"])) <= {*np.unique(given["label"]), 255}


def test_the_alignment_test_would_notice_opencvs_plain_nearest():
    given = example()
    size = (93, 70)
    wrong = {
        "image": cv2.resize(given["image"], size, interpolation=cv2.INTER_LINEAR),
        "label": cv2.resize(given["label"], size, interpolation=cv2.INTER_NEAREST),
    }
    assert np.abs(misalignment(wrong)).max() > 0.63


@pytest.mark.parametrize("transform", [transform for transform, _ in TRANSFORMS])
def test_same_generator_same_result_and_the_input_is_left_alone(transform):
    given = example()
    first = transform(given, np.random.default_rng(3))
    again = transform(example(), np.random.default_rng(3))
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_array_equal(first["label"], again["label"])
    np.testing.assert_array_equal(given["image"], example()["image"])
    np.testing.assert_array_equal(given["label"], example()["label"])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (450, 600)),  # VOC images in the recipe of the paper
        ((500, 333), (676, 450)),
        ((1200, 2400), (1100, 2200)),
        ((450, 1100), (450, 1100)),
        ((600, 700), (600, 700)),
    ],
)
def test_clamp_short_edge(size, expected):
    given = {"image": np.zeros((*size, 3), np.uint8), "label": np.zeros(size, np.uint8)}
    result = ClampShortEdge(450, 1100)(given, np.random.default_rng(0))
    assert result["label"].shape == expected


def test_scale_covers_its_range_evenly():
    heights = [
        RandomScale(0.5, 2.0)(example(), np.random.default_rng(seed))["label"].shape[0]
        for seed in range(400)
    ]
    assert 22 <= min(heights) <= 23 and 87 <= max(heights) <= 88
    # A uniform factor has mean 1.25; 400 draws have a standard error of 0.022.
    assert abs(np.mean(heights) / 44 - 1.25) < 0.1


def test_flip_mirrors_columns_in_its_share_of_cases():
    given = example()
    flipped = 0
    for seed in range(400):
        result = RandomFlip(0.25)(given, np.random.default_rng(seed))
        mirrored = result["label"][0, 0] == 59
        expected = given["image"][:, ::-1] if mirrored else given["image"]
        np.testing.assert_array_equal(result["image"], expected)
        flipped += mirrored
    assert 70 <= flipped <= 130  # 100 expected, standard deviation 9
    never, always = RandomFlip(0.0), RandomFlip(1.0)
    assert never(given, np.random.default_rng(0))["label"][0, 0] == 0
    assert always(given, np.random.default_rng(0))["label"][0, 0] == 59


def test_crop_positions_are_uniform():
    tops, lefts = np.zeros(5, int), np.zeros(4, int)
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        result = RandomCrop(40, 57, FILL)(example(), rng)
        assert result["label"].shape == (40, 57)
        tops[result["image"][0, 0, 1] // 4] += 1
        lefts[result["label"][0, 0]] += 1
    # Binomial: 400 and 500 expected with standard deviations 18 and 19.
    assert np.all(np.abs(tops - 400) < 80) and np.all(np.abs(lefts - 500) < 80)


def test_crop_pads_a_small_picture_somewhere_and_keeps_all_of_it():
    corners = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        result = RandomCrop(46, 63, FILL)(example(), rng)
        inside = result["label"] != 255
        assert inside.sum() == 44 * 60
        rows, columns = np.nonzero(inside)
        top, left = rows.min(), columns.min()
        corners.add((int(top), int(left)))
        picture = result["image"][top : top + 44, left : left + 60]
        np.testing.assert_array_equal(picture, example()["image"])
        assert np.all(result["image"][~inside] == FILL)
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_crop_of_a_picture_that_is_small_along_one_edge():
    result = RandomCrop(50, 41, FILL)(example(), np.random.default_rng(1))
    ignored_rows = np.all(result["label"] == 255, axis=1)
    assert result["label"].shape == (50, 41) and ignored_rows.sum() == 6
    first = int(result["label"][~ignored_rows][0, 0])
    np.testing.assert_array_equal(
        result["label"][~ignored_rows], example()["label"][:, first : first + 41]
    )

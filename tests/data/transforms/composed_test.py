"""Transforms in a row, computed once: what they draw, and how well it is sampled."""

import dataclasses

import cv2
import numpy as np
import PIL.Image
import pytest

from refinenet_jax.data.images import EncodedImage, read_image
from refinenet_jax.data.transforms import (
    ClampShortEdge,
    ClassCentredCrop,
    Example,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScale,
    Transform,
    View,
    transformed,
)
from refinenet_jax.errors import UserError
from tests.data.transforms.pictures import FILL, picture
from tests.references import PICTURES

GEOMETRY: list[Transform] = [
    ClampShortEdge(35, 40),
    RandomScale(0.5, 2.0, 0.0),
    RandomFlip(0.5),
    RandomCrop(31, 37, FILL),
]


def one_by_one(
    example: Example, transforms: list[Transform], rng: np.random.Generator
) -> Example:
    for transform in transforms:
        example = transform(example, rng)
    return example


@pytest.mark.parametrize(
    "transforms", [GEOMETRY, [RandomRotation(40.0, FILL), *GEOMETRY[2:]]]
)
def test_together_they_draw_what_each_draws_alone(transforms):
    for seed in range(200):
        given = picture()
        alone = one_by_one(given, transforms, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        together = transformed(given, transforms, rng).render()
        assert together["label"].shape == alone["label"].shape
        ignored = [np.mean(each["label"] == 255) for each in (alone, together)]
        assert abs(ignored[0] - ignored[1]) < 0.03
        both = (alone["label"] != 255) & (together["label"] != 255)
        # Four levels are a pixel. Nearest neighbours of nearest neighbours are one away.
        columns = alone["image"][both].astype(int) - together["image"][both]
        assert np.abs(columns).max() <= 4 + 3
        labels = alone["label"][both].astype(int) - together["label"][both]
        assert np.abs(labels).max() <= 2


def test_what_only_moves_is_exact():
    transforms = [RandomFlip(0.5), RandomCrop(50, 41, FILL), RandomFlip(0.5)]
    for seed in range(50):
        alone = one_by_one(picture(), transforms, np.random.default_rng(seed))
        together = transformed(picture(), transforms, np.random.default_rng(seed))
        for key in ("image", "label"):
            np.testing.assert_array_equal(together.render()[key], alone[key])


def test_nothing_is_computed_before_the_last_window():
    given = {**picture(), "image": EncodedImage(b"no image", "x")}
    view = transformed(given, GEOMETRY, np.random.default_rng(0))
    assert view.size == (31, 37)
    with pytest.raises(UserError, match="^image x cannot be decoded"):
        view.render()


@dataclasses.dataclass(frozen=True)
class Darker:
    """A transform of somebody's own."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return {**example, "image": example["image"] // 2}


def test_another_transform_in_between_sees_arrays():
    _, png = cv2.imencode(".png", picture()["image"][..., ::-1])
    given = {**picture(), "image": EncodedImage(png.tobytes(), "x")}
    transforms = [RandomFlip(1.0), Darker(), RandomFlip(1.0)]
    together = transformed(given, transforms, np.random.default_rng(0)).render()
    np.testing.assert_array_equal(together["image"], picture()["image"] // 2)
    np.testing.assert_array_equal(together["label"], picture()["label"])


def photo() -> np.ndarray:
    return read_image(PICTURES / "photographs" / "pascalcontext_2008_004203.jpg")


def pictured(image: np.ndarray | EncodedImage, height: int, width: int) -> View:
    rows, columns = np.mgrid[:height, :width]
    return View.of(
        {"image": image, "label": (rows // 5 + columns // 7).astype(np.uint8)}
    )


@pytest.mark.parametrize("step", [1.3, 2.5, 3.7, 4.1, 8.0, 13.0, 25.0])
@pytest.mark.parametrize("odd", [0, 1, 3])
def test_a_jpeg_is_decoded_in_as_much_detail_as_is_seen(step, odd, monkeypatch):
    image = photo()[: 320 - odd, : 488 - odd]
    height, width = image.shape[:2]
    _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    encoded = EncodedImage(jpeg.tobytes(), "x")
    units = []
    decode = EncodedImage.decode
    monkeypatch.setattr(
        EncodedImage,
        "decode",
        lambda self, unit=1: units.append(unit) or decode(self, unit),
    )
    full, _ = decode(encoded)
    views = [
        pictured(each, height, width).resized(height / step, width / step)
        for each in (encoded, full)
    ]
    for cut in (False, True):
        if cut:
            views = [
                transformed_crop(view, round(height / step) // 2) for view in views
            ]
        reduced, plain = (view.render() for view in views)
        np.testing.assert_array_equal(reduced["label"], plain["label"])
        off = np.abs(reduced["image"].astype(int) - plain["image"])
        assert off.mean() < 1.0 and np.percentile(off, 99) <= 8
    smallest_step = min(height / views[0].height, width / views[0].width)
    assert units == 2 * [max(1, 2 ** int(np.log2(smallest_step / np.sqrt(2))))]


def transformed_crop(view: View, size: int) -> View:
    return RandomCrop(size, size, FILL).place(view, np.random.default_rng(3))


@pytest.mark.parametrize("step", [1.05, 1.2, 1.4, 1.45, 1.7, 1.95, 2.0, 2.6, 3.5, 4.5])
def test_shrunk_pictures_are_as_good_as_with_area_averaging(step):
    """Against Lanczos, in decibels; plain interpolation falls 4 behind at 1.95."""
    image = photo()
    height, width = image.shape[:2]
    size = round(width / step), round(height / step)
    ideal = np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.LANCZOS))
    area = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    ours = pictured(image, height, width).resized(*size[::-1]).render()["image"]

    def decibels(pixels: np.ndarray) -> float:
        return -10 * np.log10(np.mean((pixels.astype(float) - ideal) ** 2))

    assert decibels(ours) > decibels(area) - 2


def test_an_image_of_another_size_than_its_label():
    view = pictured(photo()[:100, :120], 100, 121).resized(50, 60)
    with pytest.raises(UserError, match="has not the size of its label, 121x100"):
        view.render()


def test_a_class_that_a_turn_moves_out_of_sight_is_not_drawn():
    label = np.zeros((44, 60), np.uint8)
    label[:3, :3], label[20, 30] = 7, 5  # a corner, and next to the centre
    given = {**picture(), "label": label}
    transforms = [RandomRotation(40.0, FILL), ClassCentredCrop(9, 9, FILL)]
    seen = set()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        result = transformed(given, transforms, rng).render()["label"]
        seen |= set(np.unique(result).tolist())
        # The class that was drawn is there: 0, 5 or, where the turn is small, 7.
        assert np.any(result != 255)
    assert seen == {0, 5, 7, 255}

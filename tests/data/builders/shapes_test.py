import numpy as np
import pytest

from refinenet_jax.data import images
from refinenet_jax.data.builders.shapes import SPLIT_SIZES, draw_scene
from refinenet_jax.errors import UserError
from tests.data import ask


def test_prepared_splits_hold_the_drawn_scenes(shapes_dir):
    for split, size in SPLIT_SIZES.items():
        source = ask.open_split("shapes", split, data_dir=shapes_dir, manual_dir="")
        assert len(source) == size
        assert len({source[index]["name"] for index in range(size)}) == size
        example = source[7]
        image, label = draw_scene(split, int(example["name"].split("_")[1]))
        np.testing.assert_array_equal(images.decode_image(example["image"], ""), image)
        np.testing.assert_array_equal(images.decode_label(example["label"], ""), label)


def test_scenes():
    foreground, border, classes = [], [], np.zeros(6, int)
    for index in range(200):
        image, label = draw_scene("train", index)
        assert image.shape == (96, 128, 3) and image.dtype == np.uint8
        assert label.shape == (96, 128) and label.dtype == np.uint8
        assert set(np.unique(label)) <= {0, 1, 2, 3, 4, 5, 255}
        foreground.append(np.mean((label > 0) & (label < 255)))
        border.append(np.mean(label == 255))
        classes[np.unique(label[label < 255])] += 1
    assert 0.05 < np.mean(foreground) < 0.3
    assert 0.01 < np.mean(border) < 0.08
    # A class is in a scene of 2 to 5 objects with probability 1 - 0.8^n, 0.53 or so.
    assert classes[0] == 200 and np.all(np.abs(classes[1:] - 105) < 30)


def test_a_border_separates_objects_from_background():
    for index in range(50):
        _, label = draw_scene("val", index)
        for one, other in [
            (label[:, :-1], label[:, 1:]),
            (label[:-1, :], label[1:, :]),
        ]:
            touching = (one != other) & (one != 255) & (other != 255)
            assert not touching.any()


def test_scenes_repeat_and_differ():
    image, label = draw_scene("train", 3)
    again, label_again = draw_scene("train", 3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert np.any(draw_scene("train", 4)[0] != image)
    assert np.any(draw_scene("val", 3)[0] != image)


@pytest.mark.slow
def test_colour_alone_leaves_classes_to_be_told_apart():
    """The best class for each of 512 colours, as a segmenter without context."""

    def colours_and_labels(split, count):
        scenes = [draw_scene(split, index) for index in range(count)]
        pixels = np.concatenate([image.reshape(-1, 3) for image, _ in scenes]) // 32
        label = np.concatenate([label.ravel() for _, label in scenes])
        colour = pixels @ np.array([64, 8, 1])
        object_pixel = (label > 0) & (label < 255)
        return colour[object_pixel], label[object_pixel]

    colour, label = colours_and_labels("train", 300)
    votes = np.zeros((512, 6), int)
    np.add.at(votes, (colour, label), 1)
    colour, label = colours_and_labels("val", 100)
    accuracy = np.mean(votes[colour].argmax(axis=1) == label)
    largest = np.bincount(label).max() / label.size
    # 0.943: a strong hint, that a network learns in minutes, and not the whole answer.
    assert largest < accuracy < 0.95


def test_a_manual_dir_is_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r"config\.data\.manual_dir='/x': shapes is drawn"
    ):
        ask.prepare("shapes", data_dir=str(tmp_path), manual_dir="/x")

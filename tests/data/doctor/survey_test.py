import threading

import numpy as np
import pytest

from refinenet_jax.data.class_table import ClassTable
from refinenet_jax.data.doctor.survey import (
    Labelled,
    Split,
    evenly_spread,
    look_through,
)
from refinenet_jax.data.images import DataError

TABLE = ClassTable(
    class_names=("sky", "road", "car"),
    palette=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
    raw_to_class={0: 0, 1: 1, 3: 1, 2: 2, 255: 255},
    split_sizes={},
    archives=(),
    source="nobody",
)


def image(seed, height=40, width=56):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def survey(
    examples, table=TABLE, num_images=100, num_pictures=0, on_image=lambda: None
):
    def read(index):
        if isinstance(examples[index], Exception):
            raise examples[index]
        return examples[index]

    split = Split("train", [f"{i}.png" for i in range(len(examples))], read, image, 7)
    return look_through(
        split,
        table,
        num_images=num_images,
        num_pictures=num_pictures,
        num_threads=3,
        on_image=on_image,
    )


def label(*values, height=40, width=56, dtype=np.uint8):
    """Bands of one value each."""
    rows = np.array_split(np.arange(height), len(values))
    result = np.zeros((height, width), dtype)
    for value, band in zip(values, rows, strict=True):
        result[band] = value
    return result


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("wanted", [0, 1, 3, 7, 1000])
def test_evenly_spread(total, wanted):
    numbers = evenly_spread(total, wanted)
    assert len(numbers) == min(total, wanted) == len(set(numbers))
    assert numbers == sorted(numbers) and set(numbers) <= set(range(total))
    gaps = np.diff([-0.5 * total / max(len(numbers), 1), *numbers])
    assert len(numbers) < 2 or np.ptp(gaps[1:]) <= 1


def test_counts_by_hand():
    found = survey(
        [
            Labelled(image(0), label(0, 1, 3, 255), turned=False),
            Labelled(image(1, 20, 30), label(0, 7, height=20, width=30), turned=True),
            DataError("damaged", "2.png is damaged"),
        ]
    )
    quarter = 10 * 56
    assert (found.images, found.scanned, found.whole, found.published) == (
        3,
        3,
        True,
        7,
    )
    assert found.value_pixels == {
        0: quarter + 300,
        1: quarter,
        3: quarter,
        7: 300,
        255: quarter,
    }
    assert found.unknown == {7: 300}
    assert found.class_pixels == [quarter + 300, 2 * quarter, 0]
    assert found.class_images == [2, 1, 0]
    assert found.labelled == 3 * quarter + 300
    assert found.ignored_share == pytest.approx(quarter / (4 * quarter + 600))
    assert [look.size for look in found.looks] == [(56, 40), (30, 20)]
    assert [look.turned for look in found.looks] == [False, True]
    (fault,) = found.faults
    assert (fault.file, fault.kind) == ("2.png", "damaged")


def test_sixteen_bits():
    found = survey([Labelled(image(0), label(0, 40000, dtype=np.uint16), False)])
    assert found.unknown == {40000: 20 * 56}


def test_areas_and_specks_of_unknown_values():
    speckled = label(0, 1)
    speckled[::2, ::2] = 9
    looks = survey(
        [
            Labelled(image(0), label(0, 9), turned=False),
            Labelled(image(1), speckled, turned=False),
            Labelled(image(2), label(0, 1, 255), turned=False),
        ]
    ).looks
    # Half of the picture without its outline: rows 0 and 39, columns 0 and 55 are not
    # looked at.
    assert [look.inner.get(9, 0) for look in looks] == [18 * 54, 0, 0]
    assert looks[0].inner[0] == 18 * 54


def test_the_digest_tells_images_apart():
    same, other = image(0), image(0).reshape(56, 40, 3)
    looks = survey(
        [
            Labelled(same, label(0), turned=False),
            Labelled(same.copy(), label(1), turned=False),
            Labelled(image(1), label(0), turned=False),
            Labelled(other, label(0, height=56, width=40), turned=False),
        ]
    ).looks
    assert looks[0].digest == looks[1].digest
    assert len({look.digest for look in looks}) == 3


def test_some_of_them_evenly_spread():
    ticks = []
    examples = [Labelled(image(i), label(0), turned=False) for i in range(10)]
    found = survey(examples, num_images=3, on_image=lambda: ticks.append(1))
    assert [look.file for look in found.looks] == ["1.png", "5.png", "8.png"]
    assert len(ticks) == found.scanned == 3 and not found.whole


def test_pictures_are_small_and_few():
    wide = Labelled(
        image(0, 200, 640), label(0, 7, 255, 1, height=200, width=640), False
    )
    found = survey([wide] * 9, num_pictures=4)
    assert [p.file for p in found.pictures] == ["1.png", "3.png", "5.png", "7.png"]
    picture = found.pictures[0]
    assert picture.image.shape == (100, 320, 3) and picture.image.dtype == np.uint8
    np.testing.assert_array_equal(picture.label[12::25, 0], [0, 255, 255, 1])
    np.testing.assert_array_equal(
        picture.unknown[12::25, 0], [False, True, False, False]
    )


def test_a_picture_without_a_label():
    found = survey([DataError("jpeg_label", "0.png is a JPEG")], num_pictures=4)
    (picture,) = found.pictures
    np.testing.assert_array_equal(picture.image, image(0))
    assert picture.label is None and picture.fault == "0.png is a JPEG"
    assert found.ignored_share == 0.0


def test_an_error_that_is_none_of_the_files_ends_it():
    with pytest.raises(RuntimeError, match="broken"):
        survey([RuntimeError("broken")] * 50)
    assert threading.active_count() < 10

import numpy as np
import pytest

from refinenet_jax.data.picture_kind import RGB, PictureKind

GREY, GREY_16, RGB_16 = (
    PictureKind(1),
    PictureKind(1, "uint16"),
    PictureKind(3, "uint16"),
)
SIX = PictureKind(6, "float32")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (RGB, RGB, RGB),
        (GREY, RGB, RGB),
        (RGB, GREY, RGB),
        (GREY_16, RGB_16, RGB_16),
        (GREY, GREY_16, None),
        (RGB, RGB_16, None),
        (SIX, PictureKind(6), None),
        (GREY, PictureKind(2), None),
    ],
)
def test_what_two_kinds_can_be_shown_as(one, other, both):
    assert one.together(other) == both


def test_a_kind_says_what_it_is():
    assert str(RGB) == "RGB of 8 bits"
    assert str(GREY_16) == "1 channel of 16 bits"
    assert str(SIX) == "6 channels of float32"
    assert [k.bytes_per_pixel for k in (RGB, GREY_16, SIX)] == [3, 2, 24]
    assert PictureKind.of(np.zeros((2, 3, 6), np.float32)) == SIX

import pytest

from refinenet_jax.errors import first_line, listed


@pytest.mark.parametrize(
    ("most", "separator", "expected"),
    [
        (3, ", ", "a, b, c"),
        (2, ", ", "a, b and 1 more"),
        (1, "; ", "a; and 2 more"),
    ],
)
def test_lists_end_with_how_many_more_there_are(most, separator, expected):
    assert listed(["a", "b", "c"], most, separator) == expected


def test_an_error_without_text_is_told_by_its_kind():
    assert first_line(OSError("disk is full\nat sector 3")) == "disk is full"
    assert first_line(EOFError()) == "EOFError"

"""The largest batch that fits, over programs that are sums."""

import pytest

from refinenet_jax.planning import search


def plans(fixed, of_image, available, bend=0):
    """Plans by batch, and the list of those that were asked for."""
    asked = []

    def plan_of(batch):
        asked.append(batch)
        total = fixed + of_image * batch + bend * batch**2
        sizes = {"parameters": fixed, "total": total, "available": available}
        return {"fits": total <= available, "bytes_per_device": sizes}

    return plan_of, asked


@pytest.mark.parametrize(
    ("fixed", "of_image", "first", "largest", "tries"),
    [
        (100, 10, 16, 88, 2),  # the estimate from one is right
        (100, 10, 200, 88, 2),
        (100, 10, 88, 88, 1),
        (100, 300, 8, 3, 2),
        (100, 900, 8, 1, 2),
        (100, 901, 8, 0, 2),
        (1001, 10, 8, 0, 2),
    ],
)
def test_a_line_is_followed(fixed, of_image, first, largest, tries):
    plan_of, asked = plans(fixed, of_image, available=1000)
    batch, found = search.largest(plan_of, first)
    assert batch == largest
    assert (found is None) == (batch == 0)
    assert len(asked) == tries


def test_what_is_no_line_is_found_all_the_same():
    plan_of, asked = plans(100, 5, available=1000, bend=0.1)
    batch, found = search.largest(plan_of, 8)
    assert batch == 72  # of 73
    assert found["fits"]
    assert len(asked) <= 6


@pytest.mark.parametrize(
    ("number", "batch"), [(0.9, 0), (7.9, 7), (13.2, 12), (50, 48)]
)
def test_batches_are_round(number, batch):
    assert search.rounded(number) == batch

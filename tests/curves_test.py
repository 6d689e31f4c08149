import pytest

from refinenet_jax import curves


def test_points_and_numbers_lie_at_their_places():
    found = curves.curve("loss", [0, 50, 100], [4.0, 0.0, 2.0], 100)
    (left, top), (middle, bottom), (right, half) = found.points
    assert (left, right) == (curves.LEFT, curves.WIDTH - curves.RIGHT)
    assert middle == pytest.approx((left + right) / 2)
    assert half == pytest.approx((top + bottom) / 2)
    assert found.upward[0] == (bottom, "0") and found.upward[-1] == (top, "4")
    assert found.across[0] == (left, "0") and found.across[-1] == (right, "100")
    assert found.told == "2 at step 100; least 0, greatest 4"
    assert len(found.line.split()) == 3


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 0), (0.3, 0.3), (-2, -2), (1e-7, 3e-5), (0, 1), (41.2, 43.7), (0, 123456)],
)
def test_numbers_along_the_edge_are_round_and_hold_the_curve(low, high):
    ticks = curves._ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    assert ticks == sorted(set(ticks))
    assert all(len(f"{tick:.4g}") <= 9 for tick in ticks)


def test_long_runs_are_thinned_and_short_ones_whole():
    steps = list(range(1, 10_001))
    found = curves.curve("loss", steps, [1.0] * 10_000, 10_000)
    assert len(found.points) == 300
    assert len(curves.curve("loss", [5], [1.0], 10).points) == 1
    assert curves.curve("loss", [], [], 10) is None

import types

import pytest

from refinenet_jax.training import pace as pace_module
from refinenet_jax.training.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test lets pass."""
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(
        pace_module, "time", types.SimpleNamespace(monotonic=lambda: now.seconds)
    )
    return now


def test_steps_and_evaluations_that_are_left(clock):
    pace = Pace(0, 100, 30)  # evaluations after 30, 60, 90 and 100
    assert pace.seconds_left() is None
    for step in range(1, 11):
        clock.seconds += 2
        pace.step(step)
    assert pace.seconds_left() == pytest.approx(2 * 90)
    for step in range(11, 31):
        clock.seconds += 2
        pace.step(step)
    with pace.evaluating():
        clock.seconds += 50
    assert pace.seconds_left() == pytest.approx(2 * 70 + 3 * 50)
    clock.seconds += 2
    pace.step(31)
    assert pace.seconds_left() == pytest.approx(2 * 69 + 3 * 50)
    for step in range(32, 101):
        clock.seconds += 2
        pace.step(step)
    assert pace.seconds_left() == 0


def test_the_pace_is_that_of_the_latest_steps(clock):
    pace = Pace(500, 2000, 0)
    for step in range(501, 700):
        clock.seconds += 9
        pace.step(step)
    for step in range(700, 801):
        clock.seconds += 1
        pace.step(step)
    with pace.evaluating():
        clock.seconds += 10
    assert pace.seconds_left() == pytest.approx(1200 + 10)

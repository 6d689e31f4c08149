import pytest

from refinenet_jax import log


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (75.2, "1:15"), (3675.2, "1:01:15")]
)
def test_durations(seconds, text):
    assert log.duration(seconds) == text

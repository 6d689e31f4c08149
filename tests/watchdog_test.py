import time

from refinenet_jax import watchdog


def test_shows_where_threads_wait_only_when_nothing_moves_on(capfd):
    with watchdog.watching(2):
        for _ in range(5):
            time.sleep(0.5)
            watchdog.moved_on()
        assert capfd.readouterr().err == ""
        time.sleep(2.3)
    told = capfd.readouterr().err
    assert told.startswith("Timeout (0:00:02)!")
    assert "watchdog_test.py" in told
    watchdog.moved_on()
    with watchdog.watching(0):
        watchdog.moved_on()
    time.sleep(2.2)
    assert capfd.readouterr().err == ""

"""One at a time, whatever becomes of the one before."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

from refinenet_jax import lock
from refinenet_jax.errors import UserError

HOLD = """
import pathlib, sys, time
from refinenet_jax import lock
with lock.hold(pathlib.Path(sys.argv[1]), "work", remedy="", say=print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    monkeypatch.setattr(lock, "_POLL", 0.02)


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


class Bucket(type(pathlib.Path())):
    """A path that looks as if it were in a bucket, where there is nothing to lock."""

    def __fspath__(self):
        return f"gs://bucket{super().__fspath__()}"

    def read_text(self):
        return pathlib.Path(str(self)).read_text()

    def write_text(self, text):
        """Whole or not at all, as in a bucket."""
        new = pathlib.Path(f"{self!s}.new")
        new.write_text(text)
        new.replace(str(self))


@pytest.fixture(params=[pathlib.Path, Bucket])
def anywhere(request, path):
    """The lock on a disk of this host and in a bucket."""
    return request.param(path)


def hold(path, said=None, **options):
    say = (lambda line: None) if said is None else said.append
    return lock.hold(path, "a training in runs/x", remedy="wait", say=say, **options)


def content(path):
    while True:  # on a disk it is written in place, and may be empty for a moment
        if text := pathlib.Path(str(path)).read_text():
            return json.loads(text)


def left_by(path, **changes):
    """What a process leaves that was killed."""
    holder = {
        "host": socket.gethostname(),
        "process": 2**22 + 1,  # beyond what Linux numbers processes with
        "since": "then",
        "beat": 3,
    }
    text = json.dumps(holder | changes).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    os.pwrite(descriptor, text, 0)  # in place, and never empty in between
    os.ftruncate(descriptor, len(text))
    os.close(descriptor)


def test_it_says_who_holds_it_and_is_free_again_at_the_end(anywhere):
    with hold(anywhere):
        found = content(anywhere)
        assert found["host"] == socket.gethostname()
        assert found["process"] == os.getpid()
    with hold(anywhere):
        pass


def test_it_is_renewed_and_given_back_when_the_work_fails(anywhere):
    with pytest.raises(KeyError), hold(anywhere):
        beaten = threading.Event()
        for _ in range(200):
            if content(anywhere)["beat"] >= 2:
                beaten.set()
                break
            threading.Event().wait(0.02)
        assert beaten.is_set()
        raise KeyError
    with hold(anywhere):
        pass


def test_a_second_one_is_refused_with_who_holds_it(anywhere):
    with hold(anywhere):
        line = (
            rf"a training in runs/x goes on already, by process {os.getpid()} on "
            rf"{socket.gethostname()}, since 2.*: wait"
        )
        with pytest.raises(UserError, match=line), hold(anywhere):
            raise AssertionError


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_that_of_a_dead_process_is_taken_over(path, signal_number):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(lock.Held, match=f"process {other.pid} on"), hold(path):
        raise AssertionError
    other.send_signal(signal_number)
    other.communicate()
    assert content(path)["process"] == other.pid
    with hold(path):
        assert content(path)["process"] == os.getpid()


def test_in_a_bucket_that_of_a_dead_process_of_this_host_is_taken_over(path):
    left_by(path)
    with hold(Bucket(path)):
        assert content(path)["process"] == os.getpid()


def test_that_of_another_host_is_taken_over_where_nobody_renews_it(anywhere, path):
    left_by(path, host="elsewhere")
    said = []
    with hold(anywhere, said):
        assert content(path)["host"] == socket.gethostname()
    [line] = said
    assert (
        line
        == "watching for 1 s whether process 4194305 on elsewhere, since then is alive"
    )


def test_that_of_another_host_is_kept_where_it_is_renewed(anywhere, path):
    left_by(path, host="elsewhere")

    def renew(line):
        assert line.startswith("watching")
        left_by(path, host="elsewhere", beat=4)

    with (
        pytest.raises(lock.Held, match="4194305 on elsewhere"),
        lock.hold(anywhere, "a training", remedy="wait", say=renew),
    ):
        raise AssertionError


def test_of_two_that_come_at_once_to_a_bucket_the_last_one_holds_it(path):
    class Crowded(Bucket):
        """One to which another process writes right after ours."""

        def write_text(self, text):
            super().write_text(text)
            left_by(pathlib.Path(str(self)), host="elsewhere")

    with pytest.raises(lock.Held, match="elsewhere"), hold(Crowded(path)):
        raise AssertionError


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\x00\xff"])
def test_a_garbled_file_is_nobodys(anywhere, path, content):
    path.write_text(content)
    with hold(anywhere):
        pass


def test_a_file_that_cannot_be_written_is_told(path):
    path.mkdir()
    with pytest.raises(UserError, match=r"\.lock cannot be written"), hold(path):
        raise AssertionError


def test_who_waits_says_so_once_and_comes_next(path):
    said, order = [], []

    def second():
        with hold(path, said, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with hold(path):
        thread.start()
        while not said:
            threading.Event().wait(0.02)
        threading.Event().wait(0.1)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]
    [line] = said
    assert line.startswith(f"waiting for a training in runs/x by process {os.getpid()}")

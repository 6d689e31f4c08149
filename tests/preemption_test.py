import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from refinenet_jax import preemption

PROGRAM = """
import hashlib, signal, sys, time
from refinenet_jax import preemption
with preemption.listening():
    {body}
print("went on")
"""


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_deferred_signal_is_answered_when_asked_and_stays_so(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with preemption.listening(), preemption.deferred():
        assert not preemption.reached()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(preemption.reached)
        assert preemption.reached()
    assert "SIGTERM: finishing the step and saving" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    with preemption.listening():
        assert not preemption.reached()
    assert not [t for t in threading.enumerate() if t.name.startswith("_listen")]


def ended(body, *signals):
    """Runs the body in a process of its own and sends the signals once it says so."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "now\n" in iter(process.stdout.readline, "")
    for each in signals:
        process.send_signal(each)
        time.sleep(0.3)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("each", [signal.SIGTERM, signal.SIGINT])
def test_what_has_nothing_to_save_ends_at_once_in_the_middle_of_anything(each):
    # Python's own handlers would wait for its end, as for that of a compilation.
    long = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    body = f"print('now', flush=True); {long}"
    code, out, err = ended(body, each)
    assert (code, out) == (preemption.EXIT_CODE, "")
    assert err == f"stopped by {each.name}; the same command goes on\n"


def test_the_second_signal_ends_at_once():
    body = "with preemption.deferred(): print('now', flush=True); time.sleep(99)"
    code, out, err = ended(body, signal.SIGINT, signal.SIGTERM)
    assert (code, out) == (preemption.EXIT_CODE, "")
    assert err.splitlines() == [
        "SIGINT: finishing the step and saving; once more to stop at once",
        "stopped at once by a second signal, SIGTERM; the same command goes on",
    ]


def test_of_several_processes_jax_is_told(monkeypatch, capsys):
    sent = []
    state = preemption._State(tell_jax=sent.append)
    monkeypatch.setattr(preemption, "_state", state)
    preemption._take(signal.SIGINT)
    assert sent == [signal.SIGTERM]
    assert "finishing the step" in capsys.readouterr().err


@pytest.mark.parametrize("each", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_all_is_done_is_too_late(each):
    # Called in the opposite order.
    body = (
        "import atexit; atexit.register(time.sleep, 1); "
        "atexit.register(print, 'now', flush=True)"
    )
    code, out, err = ended(body, each)
    assert (code, out, err) == (0, "", "")

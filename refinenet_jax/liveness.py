"""Of several processes, each ends with a line when another one is gone.

Every process leaves a sign of life every few seconds in JAX's key-value service, which
process 0 holds. Process 0 looks for who fell silent, the others for what process 0 says
of it. Without this, a process waits in a collective for one that is gone until JAX's
own heartbeat aborts it, and nothing says which one it was.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from jax._src import distributed  # its client has no public name yet
from jax.errors import JaxRuntimeError

from refinenet_jax.preemption import EXIT_CODE, end_process

BEAT = 2.0  # seconds between two signs of life
SILENCE = 30.0  # seconds after which a process counts as gone
# JAX's own, which aborts 50 to 100 s after a process is gone, without naming it; it is
# left to what this cannot see, a host of process 0 that vanished without a word.
HEARTBEAT = 100  # seconds
_PREFIX = "refinenet_jax/"
_REMEDY = "start all processes again, or with fewer: the run goes on from its last save"
# What errors say where another process is the cause of them.
_OF_OTHERS = (
    "Gloo",
    "NCCL",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "Barrier",
    "coordination",
    "onnection",
)


def client() -> Any:
    """JAX's client of the service that all processes share."""
    return distributed.global_state.client


class Liveness:
    """Signs of life of this process, and a look at the others."""

    def __init__(self, index: int):
        self._index = index
        self._address = distributed.global_state.coordinator_address or ""
        self._host = socket.gethostname()
        self._beats = 0
        self._heard: dict[str, tuple[str, float]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """All have done their part; nobody is missed from now on."""
        self._stopped.set()
        self._thread.join()

    def tell(self, line: str, code: int) -> None:
        """The others end with that line and exit code, soon after this returns."""
        self.stop()
        self._set("ended", json.dumps([f"{self._name()} ended: {line}", code]))
        if self._index == 0:
            time.sleep(2 * BEAT)  # what it holds is gone with it

    def explain(self, error: Exception) -> None:
        """Gives the others the time to be found gone, where that can be the cause.

        This process then ends here, with a line.
        """
        if any(text in str(error) for text in _OF_OTHERS):
            time.sleep(SILENCE + 3 * BEAT)

    def _name(self) -> str:
        return f"process {self._index} ({self._host})"

    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            try:
                self._beat()
                found = self._look()
            except JaxRuntimeError:
                if not is_reachable(self._address) and not self._stopped.is_set():
                    self._end(gone_line(self._address), EXIT_CODE)
                continue
            if found and not self._stopped.is_set():
                self._end(*found)

    def _beat(self) -> None:
        if not self._beats:
            self._set(f"host/{self._index}", self._host)
        self._beats += 1
        self._set(f"alive/{self._index}", str(self._beats))

    def _look(self) -> tuple[str, int] | None:
        """Line and exit code to end with, if any."""
        try:
            line, code = json.loads(client().key_value_try_get(f"{_PREFIX}ended"))
            return line, code
        except JaxRuntimeError as error:
            if "NOT_FOUND" not in str(error):
                raise
        silent = self._silent() if self._index == 0 else []
        if not silent:
            return None
        line = f"{names(silent)} gave no sign of life for {SILENCE:.0f} s"
        self._set("ended", json.dumps([f"{line}: {_REMEDY}", EXIT_CODE]))
        return f"{line}: {_REMEDY}", EXIT_CODE

    def _silent(self) -> list[int]:
        """Processes whose last sign of life is too long ago; by this one's clock."""
        now = time.monotonic()
        silent = []
        for key, value in client().key_value_dir_get(f"{_PREFIX}alive/"):
            before, since = self._heard.get(key, ("", now))
            if value != before:
                since = now
            self._heard[key] = (value, since)
            if now - since > SILENCE:
                silent.append(int(key.rpartition("/")[2]))
        return silent

    def _set(self, key: str, value: str) -> None:
        client().key_value_set(f"{_PREFIX}{key}", value, allow_overwrite=True)

    def _end(self, line: str, code: int) -> None:
        print(f"error: {line}", file=sys.stderr, flush=True)
        if self._index == 0:
            time.sleep(2 * BEAT)  # the others read what it holds
        end_process(code)


def names(indices: list[int]) -> str:
    """[1, 2] → "process 1 (its host), process 2 (its host)"."""
    hosts = dict(client().key_value_dir_get(f"{_PREFIX}host/"))
    return ", ".join(
        f"process {i} ({hosts.get(f'{_PREFIX}host/{i}', 'never seen')})"
        for i in indices
    )


def gone_line(address: str) -> str:
    """Where process 0 is gone, and with it what all share."""
    return f"process 0 ({address}) is gone: {_REMEDY}"


def is_reachable(address: str) -> bool:
    """Whether process 0 listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


class AbortLine:
    """Says a line before JAX aborts this process, and ends with `EXIT_CODE` instead.

    JAX aborts from a thread of its own: at once when process 0 is gone, and when not
    all processes come together at the start. No handler of Python's runs then.

    Args:
        address: HOST:PORT of process 0; "" where JAX has to find it.
        missing: to be said where not all come together.
    """

    def __init__(self, address: str, missing: str):
        self._address = address
        self._missing = missing
        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
        self._handler = handler(self._on_abort)  # the C library calls it from now on
        ctypes.CDLL(None).signal(signal.SIGABRT, self._handler)

    def joined(self) -> None:
        """All have come together."""
        self._address = distributed.global_state.coordinator_address or ""
        self._missing = ""

    def _on_abort(self, number: int) -> None:
        del number
        line = self._missing
        if not line and not is_reachable(self._address):
            line = gone_line(self._address)
        if line:  # else it is a fault of another kind, and aborts
            os.write(2, f"error: {line}\n".encode())
            end_process(EXIT_CODE)

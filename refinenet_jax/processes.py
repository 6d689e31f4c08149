"""The processes of one run: how they find each other, wait and add up."""

import atexit
import contextlib
import importlib.util
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from refinenet_jax import preemption
from refinenet_jax.errors import UserError, first_line
from refinenet_jax.files import matching
from refinenet_jax.liveness import HEARTBEAT, AbortLine, Liveness, client, names

Result = TypeVar("Result")
Fault = TypeVar("Fault", bound=UserError)

# Seconds that a process waits for others that are alive.
_TO_JOIN = 300
_TO_ANSWER = 600
TO_WORK = 24 * 3600  # on what takes one longer, such as preparing data for all

# Of all processes together, that lie on a device at once while they are gathered.
_GATHERED_BYTES = 2**24

_abort_line: AbortLine | None = None  # kept, since C calls it
_numbers = itertools.count()  # of the calls of `gather`, alike in all processes


@contextlib.contextmanager
def joined(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Inside, the processes of one run are together; a lone machine needs nothing.

    The three values are given together by a person, or found by jax.distributed where
    a TPU pod, SLURM, Open MPI or Kubernetes tells them. All leave together; where one
    process ends by an error, or is gone, the others end too, with a line that names it.

    Raises:
        UserError: only some of the three are given, there is no device to run on, or
            it is not told which processes there are.
    """
    _start(coordinator_address, num_processes, process_id)
    if jax.process_count() == 1:
        yield
        return
    liveness = Liveness(jax.process_index())
    try:
        yield
    except preemption.Preempted:
        _part(liveness)
        raise
    except Exception as error:
        liveness.explain(error)
        code = 2 if isinstance(error, UserError) else 1
        liveness.tell(first_line(error), code)
        # JAX's own end would wait for the others, which end without it.
        atexit.register(_exit, code)
        raise
    _part(liveness)


def _part(liveness: Liveness) -> None:
    wait_for_all("the end", seconds=TO_WORK)
    liveness.stop()


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    preemption.end_process(code)


def _start(address: str | None, count: int | None, index: int | None) -> None:
    given = [address, count, index]
    if all(value is not None for value in given):
        _initialize(address, count, index)
    elif any(value is not None for value in given):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: "
            "give all three or none"
        )
    elif _is_cluster(os.environ):
        _initialize(None, None, None)
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} gives no device "
            "here: install the extra cuda or tpu, or unset it"
        ) from error


def _initialize(address: str | None, count: int | None, index: int | None) -> None:
    global _abort_line
    _abort_line = AbortLine(
        address or "",
        f"not all processes came together within {_TO_JOIN} s: start the same command "
        "for every --process_id from 0 to --num_processes − 1",
    )
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=_TO_JOIN,
        heartbeat_timeout_seconds=HEARTBEAT,
    )
    _abort_line.joined()
    if jax.process_count() > 1:
        preemption.hand_on_to_jax()


def _is_cluster(environment: Mapping[str, str]) -> bool:
    """Whether several processes were started for this run."""
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return True
    # srun sets the second; within salloc alone there is one process.
    in_step = "SLURM_STEP_NODELIST" in environment
    if in_step and int(environment.get("SLURM_NTASKS", "1")) > 1:
        return True
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    if "JOB_COMPLETION_INDEX" in environment and not (
        environment.get("TPU_WORKER_HOSTNAMES")
    ):
        return _is_kubernetes_cluster(environment["JOB_COMPLETION_INDEX"])
    # A Cloud TPU VM tells of its pod through its metadata server, which jax asks.
    has_chips = matching("/dev/accel[0-9]*") or matching("/dev/vfio/[0-9]*")
    return bool(
        environment.get("JAX_PLATFORMS") != "cpu"
        and importlib.util.find_spec("libtpu")
        and has_chips
    )


def _is_kubernetes_cluster(index: str) -> bool:
    """Whether jax.distributed can ask Kubernetes who the pods of an indexed job are.

    Raises:
        UserError: it cannot; each pod for itself would write into one workdir.
    """
    if importlib.util.find_spec("kubernetes"):
        return True
    raise UserError(
        f"JOB_COMPLETION_INDEX={index}: this is one pod of an indexed job; give "
        "--coordinator_address=JOB-0.SERVICE:PORT, --num_processes=N and "
        f"--process_id={index}, or install jax[k8s] to have them found; a pod that runs "
        "alone is --num_processes=1 --process_id=0"
    )


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """Adds an int64 array of every process; each of them gets the sum.

    All processes must call this.
    """
    if jax.process_count() == 1:
        return array
    pieces = [piece.sum(axis=0) for piece in _of_all(array.reshape(-1, 1))]
    return np.concatenate(pieces).reshape(array.shape)


def rows_of_all(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the memory of the first.

    All processes must call this. The devices hold a bounded piece of them at a time.

    Args:
        rows: int64 [N,K]; N may differ between processes.

    Returns:
        In the first process int64 [N₀+N₁+…,K]; in the others [0,K].
    """
    if jax.process_count() == 1:
        return rows
    lengths = gather(len(rows))
    padded = np.zeros((max(lengths), rows.shape[1]), np.int64)
    padded[: len(rows)] = rows
    here = jax.process_index() == 0
    found = np.zeros((sum(lengths) if here else 0, rows.shape[1]), np.int64)
    first = 0
    for piece in _of_all(padded):
        if here:
            for part, length, end in zip(
                piece, lengths, np.cumsum(lengths), strict=True
            ):
                count = max(0, min(len(part), length - first))
                start = end - length + first
                found[start : start + count] = part[:count]
        first += piece.shape[1]
    return found


def _of_all(rows: np.ndarray) -> Iterator[np.ndarray]:
    """int64 [N,K], the same N in each process → pieces [processes,n,K] of all N."""
    wait_for_all("adding up")
    row_bytes = jax.process_count() * rows.shape[1] * rows.itemsize
    step = max(1, _GATHERED_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        # Arrays on devices are at most 32 bits wide by default.
        halves = np.ascontiguousarray(rows[start : start + step]).view(np.uint32)
        yield np.asarray(multihost_utils.process_allgather(halves)).view(np.int64)


def wait_for_all(name: str, seconds: float = _TO_ANSWER) -> None:
    """Returns once every process has come here.

    Raises:
        UserError: see `gather`.
    """
    gather(None, name, seconds)


def on_first_process(work: Callable[[], Result], otherwise: str) -> Result | None:
    """Has the first process do something; where it fails, all of them end.

    All processes must call this; the others get None.

    Raises:
        UserError: what `work` raised; in the other processes `otherwise`.
    """
    result = fault = None
    if jax.process_index() == 0:
        try:
            result = work()
        except UserError as error:
            fault = error
    if any(gather(fault is not None, "the work of process 0", TO_WORK)):
        raise fault or UserError(otherwise)
    return result


def gather(
    value: Any, name: str = "an answer", seconds: float = _TO_ANSWER
) -> list[Any]:
    """What every process has, in the order of their numbers.

    All processes must call this. It goes through JAX's key-value service, not through
    the devices, where nothing ends a wait.

    Args:
        value: ready for JSON.
        name: of what is waited for, as an error has it.
        seconds: to wait for the others.

    Raises:
        UserError: some process did not call it in that time; it is named.
    """
    count, index = jax.process_count(), jax.process_index()
    if count == 1:
        return [value]
    number = next(_numbers)
    client().key_value_set(_key(number, index), json.dumps(value))
    end = time.monotonic() + seconds
    found: dict[int, Any] = {}
    for i in range(count):
        left = max(1, round(1000 * (end - time.monotonic())))
        try:
            text = client().blocking_key_value_get(_key(number, i), left)
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        else:
            found[i] = json.loads(text)
    missing = [i for i in range(count) if i not in found]
    if missing:
        raise UserError(
            f"{names(missing)} did not come to {name} within {seconds:.0f} s: see what "
            "it prints, and start all processes again"
        )
    if number:
        # Whoever has come to this call has read what the one before it left.
        client().key_value_delete(_key(number - 1, index))
    return [found[i] for i in range(count)]


def _key(number: int, index: int) -> str:
    return f"refinenet_jax/gather/{number}/{index}"


def together(work: Callable[[], Result], fault: type[Fault]) -> Result | Fault:
    """Does something that can go wrong in each process, and has all take it alike.

    All processes must call this. Where one of them meets a `fault`, all are given one;
    where one meets another UserError, all of them end.

    Raises:
        UserError: of this process, or that another one has failed.
    """
    result: Result | Fault | None = None
    failure: UserError | None = None
    try:
        result = work()
    except fault as error:
        result = error
    except UserError as error:
        failure = error
    said = gather(
        [
            str(failure) if failure else "",
            str(result) if isinstance(result, fault) else "",
        ]
    )
    if failure is not None:
        raise failure
    failed = [(i, text) for i, (text, _) in enumerate(said) if text]
    if failed:
        raise UserError(f"process {failed[0][0]} ended: {failed[0][1]}")
    faults = [text for _, text in said if text]
    if faults and not isinstance(result, fault):
        return fault(faults[0])
    assert result is not None
    return result


def any_process(happened: bool) -> bool:
    """Whether it happened in any process; each of them must ask."""
    return any(gather(happened))

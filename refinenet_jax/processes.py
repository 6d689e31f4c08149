"""The processes of one run: how they find each other, wait and add up."""

import glob
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from refinenet_jax.errors import UserError

Result = TypeVar("Result")
Fault = TypeVar("Fault", bound=UserError)


def start_processes(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the processes of one run; a lone machine needs nothing.

    The three values are given together by a person, or found by jax.distributed where
    a TPU pod, SLURM or Open MPI tells them.

    Raises:
        UserError: only some of the three are given, or there is no device to run on.
    """
    given = [coordinator_address, num_processes, process_id]
    if all(value is not None for value in given):
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    elif any(value is not None for value in given):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: "
            "give all three or none"
        )
    elif _is_cluster(os.environ):
        jax.distributed.initialize()
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} gives no device "
            "here: install the extra cuda or tpu, or unset it"
        ) from error


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
    # A Cloud TPU VM tells of its pod through its metadata server, which jax asks.
    has_chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(
        environment.get("JAX_PLATFORMS") != "cpu"
        and importlib.util.find_spec("libtpu")
        and has_chips
    )


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """Adds an int64 array of every process; each of them gets the sum."""
    if jax.process_count() == 1:
        return array
    # Halves, because arrays on devices are at most 32 bits wide by default.
    low, high = array & 0xFFFFFFFF, array >> 32
    halves = np.stack([low, high]).astype(np.uint32)
    gathered = np.asarray(multihost_utils.process_allgather(halves)).astype(np.int64)
    return gathered[:, 0].sum(axis=0) + (gathered[:, 1].sum(axis=0) << 32)


def wait_for_all(name: str) -> None:
    """Returns once every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


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
    if any_process(fault is not None):
        raise fault or UserError(otherwise)
    return result


def gather(value: Any) -> list[Any]:
    """What every process has, in the order of their numbers; ready for JSON.

    All processes must call this.
    """
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(text)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(bytes(row[:length]))
        for row, length in zip(rows, lengths, strict=True)
    ]


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
    if jax.process_count() == 1:
        return happened
    return bool(multihost_utils.process_allgather(np.asarray(happened)).any())

"""The processes of one run: how they find each other, wait and add up."""

import glob
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from refinenet_jax.errors import UserError

Result = TypeVar("Result")


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


def any_process(happened: bool) -> bool:
    """Whether it happened in any process; each of them must ask."""
    if jax.process_count() == 1:
        return happened
    return bool(multihost_utils.process_allgather(np.asarray(happened)).any())

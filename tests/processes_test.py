import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax import processes
from refinenet_jax.errors import UserError


def test_process_flags_go_together():
    with pytest.raises(UserError, match="give all three or none"):
        processes.start_processes("localhost:1234", 2, None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "8"}, False),  # salloc, without srun
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_clusters_are_recognised(environment, expected):
    cpu = {"JAX_PLATFORMS": "cpu", **environment}
    assert processes._is_cluster(cpu) is expected


def test_sums_over_processes_are_exact(monkeypatch):
    def gathered(array):  # as it comes from devices: 32 bits wide
        array = jnp.asarray(array)
        assert array.dtype == jnp.uint32
        return jnp.stack([array, array])

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gathered)
    counts = np.asarray([[10**15, 3], [2**32 - 1, 2**40 + 1]])
    total = processes.sum_over_processes(counts)
    assert total.dtype == np.int64
    assert total.tolist() == (2 * counts).tolist()


def test_what_fails_in_the_first_process_ends_the_others(monkeypatch):
    def fail():
        raise UserError("mend it")

    assert processes.on_first_process(lambda: 5, "see there") == 5
    with pytest.raises(UserError, match="mend it"):
        processes.on_first_process(fail, "see there")
    monkeypatch.setattr(processes.jax, "process_index", lambda: 1)
    assert processes.on_first_process(fail, "see there") is None
    monkeypatch.setattr(processes, "any_process", lambda happened: True)
    with pytest.raises(UserError, match="see there"):
        processes.on_first_process(fail, "see there")

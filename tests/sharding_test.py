import jax
import numpy as np
import pytest

from refinenet_jax import sharding
from refinenet_jax.errors import UserError


def test_a_batch_is_split_over_the_devices():
    mesh = sharding.global_mesh()
    assert mesh.size == jax.device_count() == 4
    batch = {"image": np.arange(8 * 3 * 5, dtype=np.uint8).reshape(8, 3, 5)}
    image = sharding.to_devices(batch, mesh)["image"]
    assert [s.data.shape for s in image.addressable_shards] == [(2, 3, 5)] * 4
    assert np.array_equal(image, batch["image"])


def test_a_batch_that_the_devices_cannot_share():
    mesh = sharding.global_mesh()
    sharding.check_batch_size("train.batch_size", 12, mesh)
    with pytest.raises(
        UserError,
        match="config.train.batch_size=10 must be a multiple of the 4 devices",
    ):
        sharding.check_batch_size("train.batch_size", 10, mesh)


def test_process_flags_go_together():
    with pytest.raises(UserError, match="give all three or none"):
        sharding.start_processes("localhost:1234", 2, None)


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
    assert sharding._is_cluster(cpu) is expected


def test_sum_over_one_process_is_exact():
    counts = np.asarray([[10**15, 3], [0, 2**40]])
    assert sharding.sum_over_processes(counts).tolist() == counts.tolist()

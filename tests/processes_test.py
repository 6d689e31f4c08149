import re
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax import processes
from refinenet_jax.errors import UserError
from tests.several import Several


def test_process_flags_go_together():
    with (
        pytest.raises(UserError, match="give all three or none"),
        processes.joined("localhost:1234", 2, None),
    ):
        pass


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
        ({"TPU_WORKER_HOSTNAMES": "a", "JOB_COMPLETION_INDEX": "0"}, False),
    ],
)
def test_clusters_are_recognised(environment, expected):
    cpu = {"JAX_PLATFORMS": "cpu", **environment}
    assert processes._is_cluster(cpu) is expected


def test_a_pod_of_an_indexed_job_is_no_run_of_its_own(monkeypatch):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="JOB_COMPLETION_INDEX=3.*--process_id=3"):
        processes._is_cluster({"JOB_COMPLETION_INDEX": "3"})


def test_sums_over_processes_are_exact(monkeypatch):
    def gathered(array):  # as it comes from devices: 32 bits wide
        array = jnp.asarray(array)
        assert array.dtype == jnp.uint32
        return jnp.stack([array, array])

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "wait_for_all", lambda name: None)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gathered)
    counts = np.asarray([[10**15, 3], [2**32 - 1, 2**40 + 1]])
    total = processes.sum_over_processes(counts)
    assert total.dtype == np.int64
    assert total.tolist() == (2 * counts).tolist()


def test_rows_of_all_processes_come_to_the_first_in_bounded_pieces(monkeypatch):
    """As many counts as 5,000 images of 171 classes have on 64 processes."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**40, (5000, 3 * 171))
    several = Several(64, monkeypatch)
    first, *others = several.run(lambda index: processes.rows_of_all(rows[index::64]))
    expected = np.concatenate([rows[index::64] for index in range(64)])
    np.testing.assert_array_equal(first, expected)
    assert {found.shape for found in others} == {(0, 3 * 171)}
    assert several.largest <= 2**24 < rows.nbytes

    several.largest = 0
    total, *_ = several.run(lambda index: processes.sum_over_processes(rows[:64]))
    np.testing.assert_array_equal(total, 64 * rows[:64])
    assert several.largest <= 2**24


def test_what_fails_in_the_first_process_ends_the_others(monkeypatch):
    def fail():
        raise UserError("mend it")

    assert processes.on_first_process(lambda: 5, "see there") == 5
    with pytest.raises(UserError, match="mend it"):
        processes.on_first_process(fail, "see there")
    monkeypatch.setattr(processes.jax, "process_index", lambda: 1)
    assert processes.on_first_process(fail, "see there") is None
    monkeypatch.setattr(processes, "gather", lambda *_: [True, False])
    with pytest.raises(UserError, match="see there"):
        processes.on_first_process(fail, "see there")


PROGRAM = """
import sys, time
from refinenet_jax import main, processes
from refinenet_jax.errors import UserError
address, index = sys.argv[1], int(sys.argv[2])

def work(argv):
    with processes.joined(address, 2, index):
        assert processes.gather({"from": index}) == [{"from": 0}, {"from": 1}]
        assert processes.any_process(index == 1)
        %s

main.main = work
main.run()
"""


def two_processes(body):
    """Exit codes and stderr of both."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM % body, address, str(index)],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    return [process.returncode for process in both], errors


def lines(text):
    """Without what JAX itself prints."""
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_who_does_not_come_is_named_and_all_end():
    codes, errors = two_processes(
        "index or processes.wait_for_all('the test', seconds=1); time.sleep(30)"
    )
    host = re.escape(socket.gethostname())
    [line] = lines(errors[0])
    late = rf"process 1 \({host}\) did not come to the test within 1 s"
    assert re.match(f"error: {late}", line)
    [line] = lines(errors[1])
    assert re.match(rf"error: process 0 \({host}\) ended: {late}", line)
    assert codes == [2, 2]


def test_a_process_that_fails_ends_the_others_with_its_line():
    codes, errors = two_processes(
        "if index: raise UserError('mend it')\n        processes.wait_for_all('x')"
    )
    assert codes == [2, 2]
    assert lines(errors[1]) == ["error: mend it"]
    assert lines(errors[0]) == [
        f"error: process 1 ({socket.gethostname()}) ended: mend it"
    ]

"""What does not fit is told with its number and the remedy."""

import jax
import jax.numpy as jnp
import pytest

from refinenet_jax import memory


def test_a_device_that_runs_out_is_told_with_the_remedy():
    size = 2**44  # bytes, more than any device has
    with (
        pytest.raises(memory.OutOfMemory, match=r"left for X \(RESOURCE.*: lower Y"),
        memory.telling("X", "lower Y"),
    ):
        jnp.zeros(size, jnp.uint8).block_until_ready()


def test_so_is_a_host_that_runs_out():
    with (
        pytest.raises(memory.OutOfMemory, match=r"left for X \(MemoryError\): lower Y"),
        memory.telling("X", "lower Y"),
    ):
        raise MemoryError


def test_other_faults_stay_what_they_are():
    with pytest.raises(KeyError), memory.telling("X", "lower Y"):
        raise KeyError


def test_a_program_is_refused_by_what_it_needs(monkeypatch):
    compiled = jax.jit(lambda x: x[:, None] + x[None]).lower(jnp.zeros(1024)).compile()
    monkeypatch.setattr(memory, "device_bytes", lambda: 2**22 + 2**20)
    memory.refuse_large_program(compiled, "X", "lower Y")  # its result has 4 MiB
    monkeypatch.setattr(memory, "device_bytes", lambda: 2**22)
    with pytest.raises(memory.OutOfMemory, match=r"X needs 0.0 GiB .*: lower Y"):
        memory.refuse_large_program(compiled, "X", "lower Y")


def test_the_memory_of_this_machine():
    assert 2**28 < memory.host_bytes() < 2**50
    assert 0 < memory.device_bytes() <= memory.host_bytes()
    assert memory.gibibytes(3 * 2**29) == "1.5 GiB"

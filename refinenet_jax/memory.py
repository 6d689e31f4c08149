"""Whether what a person asks for fits into memory, told with numbers before it fails."""

import contextlib
import os
from collections.abc import Iterator

import jax

from refinenet_jax import files
from refinenet_jax.errors import UserError, first_line

_EXHAUSTED = "RESOURCE_EXHAUSTED"  # how XLA says that memory is out
_CGROUP_LIMIT = files.path("/sys/fs/cgroup/memory.max")  # of a container


class OutOfMemory(UserError):
    """More memory is asked for than there is."""


def refuse_large_program(compiled: jax.stages.Compiled, what: str, remedy: str) -> None:
    """Raises OutOfMemory where a program needs more than its devices have.

    what: the program, such as "a training step"; remedy: what makes it smaller.
    """
    sizes = compiled.memory_analysis()
    if sizes is None:  # not every backend tells
        return
    needed = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )
    device = jax.local_devices()[0]
    if needed > device_bytes():
        raise OutOfMemory(
            f"{what} needs {gibibytes(needed)} on each device, and a "
            f"{device.device_kind} here has {gibibytes(device_bytes())}: {remedy}"
        )


@contextlib.contextmanager
def telling(what: str, remedy: str) -> Iterator[None]:
    """Turns "out of memory" of device or host into OutOfMemory; arguments as above."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and _EXHAUSTED not in str(error):
            raise
        raise OutOfMemory(
            f"no memory is left for {what} ({first_line(error)}): {remedy}"
        ) from error


def device_bytes() -> int:
    """Of one device of this process; those of a CPU share the memory of the host."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_bytes() // jax.local_device_count()


def host_bytes() -> int:
    """Of this machine, or of the container that the process runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # none, or "max"
        return min(total, int(_CGROUP_LIMIT.read_text()))
    return total


def gibibytes(number: int) -> str:
    """In words: 1610612736 → "1.5 GiB"."""
    return f"{number / 2**30:.1f} GiB"

"""What is set for a process before it computes: compiled programs are kept, and memory.

The program sets it; importing the library sets nothing. docs/performance.md tells what
each of it gains.
"""

import ctypes
import hashlib
import os
import platform

import jax
from etils import epath

from refinenet_jax import files

# glibc's numbers of these parameters, <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_TOP_PAD = 2**28

_DEVICES = "/dev"


def tune() -> None:
    """Sets what suits this machine; to be called before JAX has looked for devices.

    By then XLA has started its threads, and each of these takes memory in a way of its
    own that no setting changes any more.

    JAX_COMPILATION_CACHE_DIR names another folder for compiled programs, and
    JAX_ENABLE_COMPILATION_CACHE=false keeps none; REFINENET_MALLOC=default leaves
    memory as it is.
    """
    keep_compiled_programs()
    if _computes_on_cpu() and os.environ.get("REFINENET_MALLOC") != "default":
        keep_memory()


def keep_compiled_programs() -> None:
    """Compiled programs go to the user's cache folder, and are found there next time.

    Only where no other folder is set. Programs for a CPU may use instructions that
    another one lacks: each kind of CPU has a folder of its own.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))


def cache_folder() -> epath.Path:
    """The folder of compiled programs for this kind of machine."""
    kind = hashlib.sha256(_cpu().encode()).hexdigest()[:8]
    return files.user_cache() / f"compiled-{kind}"


def keep_memory() -> bool:
    """Memory that was given back is kept for the next call; whether glibc was told.

    XLA takes the temporaries of a program from malloc at each call. Returned to the
    kernel between calls, all their pages would be cleared and mapped again.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: _TOP_PAD,
        _M_ARENA_MAX: 1,
    }
    return all(mallopt(name, value) for name, value in settings.items())


def _computes_on_cpu() -> bool:
    """Told by the devices of the kernel: those of JAX cannot be asked for yet."""
    named = jax.config.values["jax_platforms"]
    if named:
        return bool(named.split(",")[0] == "cpu")
    return not any(
        any(files.path(_DEVICES).glob(pattern))
        for pattern in ("nvidia[0-9]*", "accel*", "vfio/[0-9]*", "kfd")
    )


def _cpu() -> str:
    """What tells this kind of CPU from others."""
    try:
        lines = files.path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.machine() + platform.processor()
    told = ("flags", "Features", "model name")
    return platform.machine() + "".join(
        dict.fromkeys(line for line in lines if line.startswith(told))
    )

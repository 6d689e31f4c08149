"""Starts the program again to compile for what is not attached; needs no jax.

The compilers of other machines' chips belong into a process of their own: jax must be
told before it starts that nothing is attached, they write to stderr what nobody asked,
and they can end the process that they run in.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from refinenet_jax import files, preemption
from refinenet_jax.errors import UserError
from refinenet_jax.planning.targets import Topology

_MARK = "REFINENET_PLANS_APART"
# What a process must be told before it imports jax.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # plans are kept, not programs
    # libtpu asks the cloud's metadata server about the machine otherwise.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Several plans at a time: they take no chip from one another.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl
_WITHOUT_TRITON = ", or XLA_FLAGS=--xla_gpu_enable_triton_gemm=false"
_FATAL = re.compile(r"^F\d{4} [^\]]*\] (.*)$", re.MULTILINE)


def is_apart() -> bool:
    """Whether this is the process that was started to compile; it ends with the other."""
    if _MARK in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGTERM)
    return _MARK in os.environ


def run(arguments: Sequence[str], topology: Topology) -> None:
    """Runs a command line in a process that compiles for chips that are not there.

    Its stdout is ours.

    Args:
        arguments: of the program, without its name.
        topology: what it compiles for.

    Raises:
        UserError: what it said, or that the compiler broke it off.
        Preempted: it was asked to end.
    """
    package = files.path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{package.name}.main", *arguments],
        env={
            **os.environ,
            **ENVIRONMENT,
            _MARK: "1",
            "PYTHONPATH": _search_path(package.parent),
        },
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    _, said = process.communicate()
    code = process.returncode
    if code == 0:
        return
    if code == 2 and (lines := re.findall(r"^error: (.*)$", said, re.MULTILINE)):
        raise UserError(lines[-1])
    if code == preemption.EXIT_CODE:
        raise preemption.Preempted("the plan was broken off")
    if code == -signal.SIGKILL:
        raise UserError(
            f"the compiler for {topology.name} was killed: it needs more memory than "
            "this machine has left; compile on a larger one, or set config.model.variant "
            "to a smaller network"
        )
    if code < 0:
        fatal = _FATAL.search(said)
        what = fatal[1].strip() if fatal else signal.strsignal(-code)
        raise UserError(
            f"the compiler for {topology.name} broke off: {what}; try another "
            "config.train.batch_size or config.data.crop_size"
            + _WITHOUT_TRITON
            * (topology.chip.platform == "gpu")
        )
    raise RuntimeError(f"planning for {topology.name} failed:\n{said}")


def _search_path(folder: object) -> str:
    others = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(folder), *([others] if others else [])])

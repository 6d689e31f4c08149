"""What a result was made with."""

import functools
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata

from refinenet_jax import files

_PACKAGES = ("refinenet_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain")


@functools.cache
def provenance() -> dict[str, object]:
    """Command, commit, versions and devices of this process, ready for JSON.

    The first call decides: later the checkout may have moved on. The command is as a
    shell takes it, without the path where the program is installed; a package that is
    not installed is None.
    """
    import jax  # here, since versions are asked for where it must not be imported yet

    program, *arguments = sys.argv
    return {
        "command": shlex.join([os.path.basename(program), *arguments]),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this checkout; None where there is none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    folder = files.path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None  # installed; a repository further up is another project's
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None

"""Prints the seconds to the first step of a training: cold, and with what was compiled.

    python benchmarks/startup.py --config=default
    python benchmarks/startup.py --config=voc --config.data.manual_dir=DIR

Starts the program twice with an empty cache folder, in new workdirs, on data that is
prepared before; and its --help, and a wrong flag.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parts.tables import machine


def main(*arguments: str) -> None:
    """Times and prints."""
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        rows = [
            ("--help", seconds_of(environment, "--help")),
            ("a wrong flag", seconds_of(environment, "--confg=voc")),
        ]
        first_step(environment, f"{folder}/prepared", *arguments, "--mode=check_data")
        for name in ("cold", "warm"):
            rows.append((name, first_step(environment, f"{folder}/{name}", *arguments)))
    print("| start | seconds |\n|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.1f} |")


def seconds_of(environment: dict[str, str], *arguments: str) -> float:
    """Until the program has ended."""
    start = time.monotonic()
    command = [sys.executable, "-m", "refinenet_jax.main", *arguments]
    subprocess.run(command, env=environment, capture_output=True, check=False)
    return time.monotonic() - start


def first_step(environment: dict[str, str], workdir: str, *arguments: str) -> float:
    """Until the first step is in the log; the program is stopped there, or ends."""
    start = time.monotonic()
    command = [sys.executable, "-m", "refinenet_jax.main", f"--workdir={workdir}"]
    with subprocess.Popen(
        [*command, "--config.train.log_every=1", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        log = Path(workdir) / "train.jsonl"
        while process.poll() is None:
            if log.exists() and log.stat().st_size:
                seconds = time.monotonic() - start
                process.terminate()
                process.communicate()
                return seconds
            time.sleep(0.05)
        said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(said)
    return time.monotonic() - start


if __name__ == "__main__":
    main(*sys.argv[1:])

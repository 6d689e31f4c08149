"""Kills small runs of the default job at random moments until each is done.

    python -m tests.chaos.kill [--runs=20] [--processes=1] [--seed=0]

prints a line for each run: what was sent, when, how the program ended, and whether the
state at the end is, bit for bit, that of a run which nobody disturbed. With two
processes one of them is killed; how long the other one lives on is told instead, and
the run goes on with one or two. Ends with 1 where a run did not survive.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from refinenet_jax.preemption import EXIT_CODE

REPOSITORY = Path(__file__).parent.parent.parent
NUM_STEPS, EVAL_EVERY = 6, 3
JOB = (
    "--config=configs/default.py",
    f"--config.train.num_steps={NUM_STEPS}",
    "--config.train.batch_size=2",
    "--config.train.log_every=1",
    f"--config.train.eval_every={EVAL_EVERY}",
    "--config.train.checkpoint_every=2",
    "--config.eval.bootstrap_samples=0",
    "--config.data.crop_size=64",
)
# Seconds that a process may live on when another one was killed; docs/preemption.md.
STATED = 40


class Run:
    """Processes of the program, started together in one workdir."""

    def __init__(self, workdir: Path, processes: int = 1):
        self.workdir = workdir
        self.lines: list[str] = []
        self.started = time.monotonic()
        several: list[str] = []
        if processes > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                several = [
                    f"--coordinator_address=localhost:{free.getsockname()[1]}",
                    f"--num_processes={processes}",
                ]
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "refinenet_jax.main", *JOB),
                    f"--workdir={workdir}",
                    *several,
                    *([f"--process_id={index}"] if several else []),
                ],
                cwd=REPOSITORY,
                env={**os.environ, **environment(workdir)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(processes)
        ]
        self._readers = [
            threading.Thread(target=self._read, args=(process,))
            for process in self.processes
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.lines.extend(iter(process.stdout.readline, ""))

    def is_alive(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def wait(self) -> list[int]:
        """The exit codes."""
        codes = [process.wait(timeout=1800) for process in self.processes]
        for reader in self._readers:
            reader.join()
        return codes

    def output(self) -> str:
        return "".join(self.lines)


def environment(workdir: Path) -> dict[str, str]:
    """One device, data of its own, and programs compiled once for all."""
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": compiled or str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        "TFDS_DATA_DIR": str(workdir.parent / f"{workdir.name}_data"),
    }


def is_preparing(run: Run) -> bool:
    return "preparing shapes" in run.output()


def is_evaluating(run: Run) -> bool:
    """In the first evaluation, or in one that the run goes on with."""
    text = run.output()
    return f"step {EVAL_EVERY}/{NUM_STEPS}" in text and "mean IoU" not in text


def is_saving(run: Run) -> bool:
    # Before its first step, these are what an earlier kill left.
    begun = f"/{NUM_STEPS}  loss" in run.output()
    return begun and any((run.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


MOMENTS: dict[str, Callable[[Run], bool]] = {
    "preparing": is_preparing,
    "evaluating": is_evaluating,
    "saving": is_saving,
    "any": lambda run: True,
}


@dataclasses.dataclass
class Kill:
    """What is sent, and when.

    Attributes:
        moment: one of MOMENTS.
        seconds: after it begins.
        signal: that is sent.
        process: to which.
    """

    moment: str
    seconds: float
    signal: signal.Signals
    process: int = 0

    def __str__(self) -> str:
        return f"{self.signal.name} {self.moment}+{self.seconds:.1f}s"


def disturb(run: Run, kill: Kill) -> bool:
    """Sends the signal at its moment; False where the run ended before it came."""
    begins = MOMENTS[kill.moment]
    while run.is_alive() and not begins(run):
        time.sleep(0.002)
    end = time.monotonic() + kill.seconds
    while run.is_alive() and time.monotonic() < end:
        time.sleep(0.002)
    if not run.is_alive():
        return False
    run.processes[kill.process].send_signal(kill.signal)
    return True


def check_end(run: Run, kill: Kill, codes: Sequence[int]) -> None:
    """Of a run of one process that was disturbed."""
    output = run.output()
    assert "Traceback" not in output, output
    # Before it listens, which is before anything is done, Python itself is ended.
    as_ever = {-kill.signal, 128 + kill.signal}
    ended = as_ever if kill.signal == signal.SIGKILL else {EXIT_CODE, 0, *as_ever}
    assert codes[0] in ended, f"{kill}: {codes[0]}\n{output}"
    if codes[0] == EXIT_CODE:
        assert "the same command goes on" in output, output


def finish(workdir: Path, processes: int = 1) -> str:
    """Runs to the end; the digest of the state there."""
    run = Run(workdir, processes)
    codes = run.wait()
    assert codes == [0] * processes, run.output()
    return digest(workdir)


def digest(workdir: Path) -> str:
    """state_sha256 of result.json, whose evaluations must be there too."""
    result = json.loads((workdir / "result.json").read_text())
    assert result["step"] == result["last"]["step"] == NUM_STEPS, result
    assert result["best"]["mean_iou"] >= result["last"]["mean_iou"], result
    for step in (EVAL_EVERY, NUM_STEPS):
        evaluation = json.loads((workdir / "eval" / f"{step}.json").read_text())
        assert evaluation["num_images"] == 100
    return result["state_sha256"]


def random_kill(chance: random.Random, processes: int = 1) -> Kill:
    """Mostly at the moments that matter."""
    moment = chance.choice(list(MOMENTS))
    seconds = chance.uniform(0, 25 if moment == "any" else 0.6)
    sent = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    which = chance.choice(sent if processes == 1 else sent[:1])
    return Kill(moment, seconds, which, chance.randrange(processes))


def survive(workdir: Path, kills: Sequence[Kill]) -> tuple[str, str]:
    """One run through all kills to its end: what happened, and the digest."""
    told = []
    for kill in kills:
        run = Run(workdir)
        was_sent = disturb(run, kill)
        codes = run.wait()
        if was_sent:
            check_end(run, kill, codes)
            told.append(f"{kill} → {codes[0]}")
    return "; ".join(told), finish(workdir)


def survive_alone(workdir: Path, kill: Kill, processes_after: int) -> str:
    """Two processes, one killed: the other ends in time, and the run goes on."""
    run = Run(workdir, processes=2)
    told = "done before the kill"
    if disturb(run, kill):
        killed = time.monotonic()
        codes = run.wait()
        seconds = time.monotonic() - killed
        other = codes[1 - kill.process]
        output = run.output()
        assert "Traceback" not in output, output
        assert seconds < STATED, f"{seconds:.0f} s\n{output}"
        assert other == EXIT_CODE, f"{codes}\n{output}"
        assert f"error: process {kill.process} (" in output, output
        told = (
            f"{kill} to process {kill.process}; the other → {other} in {seconds:.0f} s"
        )
    else:
        run.wait()
    finish(workdir, processes_after)
    return f"{told}; finished with {processes_after}"


def main(argv: Sequence[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kill")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--kills", type=int, default=3, help="of a run of one process")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    chance = random.Random(given.seed)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        expected = finish(Path(folder) / "undisturbed")
        print(f"undisturbed: {expected[:12]}", flush=True)
        for number in range(1, given.runs + 1):
            workdir = Path(folder) / f"run{number}"
            try:
                if given.processes == 1:
                    kills = [random_kill(chance) for _ in range(given.kills)]
                    told, found = survive(workdir, kills)
                    assert found == expected, f"{told}: {found} is another state"
                    told = f"{found[:12]} equal; {told}"
                else:
                    kill = random_kill(chance, processes=2)
                    told = survive_alone(workdir, kill, chance.choice((1, 2)))
            except AssertionError as error:
                failures += 1
                told = f"FAILED: {error}"
            print(f"{number:3}  {told}", flush=True)
    print(f"{given.runs - failures} of {given.runs} survived")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Flips one byte of a checkpoint at a time, and restores it.

    python -m tests.chaos.flip [--restores=200] [--seed=0]

Half of them through Segmenter, half through train. Each must give the weights that were
saved, say that it takes those of the checkpoint before, or be refused in one line: prints
how many did which. Ends with 1 where weights were wrong or a restore ended otherwise.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from refinenet_jax import Segmenter
from refinenet_jax import main as program
from refinenet_jax.errors import UserError
from refinenet_jax.models.leaves import named_leaves, weights_of
from tests.chaos.kill import JOB, environment

TAKES_ANOTHER = "is damaged"  # is said where an earlier checkpoint is taken


def train(workdir: Path) -> str:
    """Goes on to the end; the digest of its state, which any checkpoint leads to."""
    arguments = (*JOB, "--config.data.num_workers=0", f"--workdir={workdir}")
    program.main(["refinenet", *arguments])
    return json.loads((workdir / "result.json").read_text())["state_sha256"]


def segment(workdir: Path) -> str:
    """Opens the last network; the digest of its weights."""
    model = Segmenter.from_checkpoint(workdir, "latest").model
    found = hashlib.sha256()
    for path, leaf in named_leaves(weights_of(model)).items():
        found.update(path.encode() + np.asarray(leaf[...]).tobytes())
    return found.hexdigest()


WAYS: dict[str, Callable[[Path], str]] = {"Segmenter": segment, "train": train}


def flip(workdir: Path, chance: random.Random) -> str:
    """Changes a byte of the newest checkpoint; says which."""
    folder = newest(workdir)
    files = [x for x in sorted(folder.rglob("*")) if x.is_file() and x.stat().st_size]
    file = chance.choice(files)
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"byte {place} of {file.relative_to(folder)}"


def newest(workdir: Path) -> Path:
    """The folder of the last checkpoint."""
    return max((workdir / "checkpoints").iterdir(), key=lambda found: int(found.name))


def outcome(way: str, workdir: Path, right: str, before: str) -> str:
    """What came of a restore; right, before: digests of the last two checkpoints."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            found = WAYS[way](workdir)
    except UserError as error:
        return "refused" if "\n" not in str(error) else "TRACEBACK"
    except Exception:  # noqa: BLE001 (what is to be found here)
        traceback.print_exc()
        return "TRACEBACK"
    if TAKES_ANOTHER in told.getvalue():
        return "the one before, said" if found == before else "WRONG"
    return "right" if found == right else "WRONG"


def main(argv: Sequence[str]) -> int:
    """Prints what came of the restores."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.flip")
    parser.add_argument("--restores", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    chance = random.Random(given.seed)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="flip-") as name:
        whole, workdir = Path(name) / "run", Path(name) / "flipped"
        os.environ.update(environment(whole))
        train(whole)
        shutil.copytree(whole, workdir)
        shutil.rmtree(newest(workdir))
        right = {way: restore(whole) for way, restore in WAYS.items()}
        before = {way: restore(workdir) for way, restore in WAYS.items()}
        for number in range(given.restores):
            shutil.rmtree(workdir)
            shutil.copytree(whole, workdir)
            way = list(WAYS)[number % len(WAYS)]
            where = flip(workdir, chance)
            found = outcome(way, workdir, right[way], before[way])
            counts[way, found] += 1
            print(f"{number + 1:4}  {way:9}  {found}: {where}", flush=True)
    for (way, found), count in sorted(counts.items()):
        print(f"{way}: {count} {found}")
    return int(any(found in ("WRONG", "TRACEBACK") for _, found in counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

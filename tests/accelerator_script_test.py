"""benchmarks/accelerator.sh: with a stand-in for python, and once in earnest on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refinenet_jax import preemption
from tests.data.conftest import Writer

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "accelerator.sh"
STEPS = ["environment", "tests", "train_step", "predict", "plan_bytes", "camvid"]


def run(folder, path, *arguments, **environment):
    """The script, on a CPU unless told, with `path`; gives (exit code, stdout, stderr)."""
    path = f"{path}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", SCRIPT, folder, *arguments],
        env={**os.environ, "PATH": path, "ACCELERATOR": "cpu", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def rows(folder):
    """Name and exit code of every step that was run, and its command."""
    lines = (folder / "steps.tsv").read_text().splitlines()
    split = [line.split("\t") for line in lines]
    return [(name, int(code)) for name, code, _, _ in split], [r[3] for r in split]


@pytest.fixture
def stand_in(tmp_path):
    """Programs whose `python` ends with what the file named like its script holds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '*default_backend*) cat "$0.backend" ;;\n'
        "*is_available*) exit 1 ;;\n"
        '*train_step*) exit "$(cat "$0.train_step")" ;;\n'
        '*refinenet_jax.main*) exit "$(cat "$0.main")" ;;\n'
        "*) echo done ;;\nesac\n"
    )
    (folder / "python").chmod(0o755)
    for name, text in (("backend", "gpu"), ("train_step", "0"), ("main", "75")):
        (folder / f"python.{name}").write_text(text)
    return folder


def test_a_second_call_goes_on_with_the_training_and_what_failed(stand_in, tmp_path):
    folder, camvid = tmp_path / "a folder", tmp_path / "camvid"
    (stand_in / "python.train_step").write_text("3")
    environment = {"CAMVID": str(camvid), "ACCELERATOR": ""}
    code, out, err = run(folder, stand_in, "--config.seed=1", **environment)
    assert (code, err) == (1, "train_step: exit code 3\n"), out
    codes, commands = rows(folder)
    expected = [0, 0, 3, 0, 0, preemption.EXIT_CODE]
    assert codes == list(zip(STEPS, expected, strict=True))
    assert (folder / "predict.txt").read_text() == "done\n"
    assert "--dtype=bfloat16" in commands[2] and "--peer" not in commands[2]
    assert f"--config.data.manual_dir={camvid} " in commands[5]
    assert commands[5].endswith(f"--workdir={folder}/camvid --config.seed=1")
    (stand_in / "python.train_step").write_text("0")
    assert run(folder, stand_in, **environment)[0] == 0
    again, _ = rows(folder)
    assert again[6:] == [("train_step", 0), ("camvid", preemption.EXIT_CODE)]


def test_a_cpu_is_no_accelerator(stand_in, tmp_path):
    (stand_in / "python.backend").write_text("cpu")
    code, out, err = run(tmp_path / "out", stand_in, ACCELERATOR="")
    assert (code, out) == (2, "")
    assert "no GPU and no TPU" in err and "ACCELERATOR=cpu" in err
    assert (tmp_path / "out/steps.tsv").read_text() == ""


def test_where_no_time_is_left_nothing_is_begun(stand_in, tmp_path):
    code, out, _ = run(tmp_path / "out", stand_in, LIMIT="4", CAMVID="somewhere")
    assert (code, out.count("no time left")) == (0, len(STEPS))


def test_without_a_folder_nothing_is_trained(stand_in, tmp_path):
    _, out, _ = run(tmp_path / "out", stand_in, STEPS="predict camvid")
    assert rows(tmp_path / "out")[0] == [("predict", 0)]
    assert "CAMVID=DIR names no folder" in out


@pytest.mark.slow
def test_on_a_cpu_in_earnest(tmp_path):
    Writer().camvid(tmp_path / "camvid", splits=("train", "val"), count=4)
    small = (
        "--config.model.cascade=single",
        "--config.model.pooling_stages=1",
        "--config.data.crop_size=32",
        "--config.data.num_workers=0",
        "--config.train.batch_size=4",
        "--config.eval.bootstrap_samples=0",
    )
    environment = {
        "CAMVID": str(tmp_path / "camvid"),
        "STEPS": "environment tests plan_bytes camvid",
        "PYTEST_ADDOPTS": "-k 'there or counted'",
        "JAX_NUM_CPU_DEVICES": "1",
    }
    path = Path(sys.executable).parent
    for steps in (1, 2):
        number = f"--config.train.num_steps={steps}"
        code, out, err = run(tmp_path / "out", path, *small, number, **environment)
        assert code == 0, (out, err)
        made = json.loads((tmp_path / "out/camvid/result.json").read_text())
        assert made["step"] == 1
    assert rows(tmp_path / "out")[0] == [
        (name, 0) for name in environment["STEPS"].split()
    ]
    found = json.loads((tmp_path / "out/environment.json").read_text())
    assert found["backend"] == "cpu" and found["devices"][0]["bytes_limit"] is None
    assert found["packages"]["libtpu"] is None
    assert "2 passed" in (tmp_path / "out/tests.txt").read_text()
    table = (tmp_path / "out/plan_bytes.txt").read_text()
    assert "| camvid:light_resnet18 | 1 × 32², float32 | " in table
    assert "| not reported by this device |" in table

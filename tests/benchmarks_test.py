"""Every script in benchmarks/ runs; what it measures is not looked at."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from refinenet_jax import main
from refinenet_jax.weights.torch import write_safetensors
from tests.references import PICTURES
from tests.weights.networks import checkpoint_of

FOLDER = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.slow  # compiles programs that no other test needs


def script(name):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A network of random weights, as mode convert leaves it."""
    folder = tmp_path_factory.mktemp("network")
    weights = folder / "weights.safetensors"
    write_safetensors(weights, checkpoint_of("light_resnet18", num_classes=6), {})
    main.main(
        [
            "refinenet",
            "--config=default",
            "--mode=convert",
            f"--weights={weights}",
            f"--workdir={folder / 'run'}",
        ]
    )
    return folder / "run"


def test_every_script_is_tried():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {name.removeprefix("test_") for name in globals()} & names


def test_data_memory(tmp_path):
    module = script("data_memory")
    module.write_images(tmp_path / "data", 9)
    assert module.peak_mebibytes("prepare", tmp_path / "data") > 0
    module.stream(tmp_path / "data", num_batches=1)


def test_eval_memory(workdir, monkeypatch, capsys):
    module = script("eval_memory")
    monkeypatch.setattr(module, "_SHAPE", (40, 60, 3))
    module.measure(str(workdir), window=0)
    assert len(capsys.readouterr().out.split()) == 6


def test_layers(monkeypatch, capsys):
    module = script("layers")
    monkeypatch.setattr(module, "_REPEATS", 1)
    module.main([])
    assert "max-pool 5×5" in capsys.readouterr().out


def test_sizes(workdir, capsys):
    module = script("sizes")
    module.main(str(workdir), str(PICTURES / "person_part" / "images"), "512,512")
    out = capsys.readouterr().out
    assert "3 images of 3 sizes" in out
    difference = out.partition("largest difference of a probability ")[2].split()[0]
    assert float(difference) < 1e-5


def test_train_step():
    done = subprocess.run(
        [
            sys.executable,
            FOLDER / "train_step.py",
            "--crop_size=32",
            "--batch_size=4",
            "--num_steps=1",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "batch             [4, 32, 32]" in done.stdout

"""Every script in benchmarks/ runs; what it measures is not looked at."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from refinenet_jax import main, sharding
from refinenet_jax.planning import targets
from refinenet_jax.weights.torch import write_safetensors
from tests.references import PICTURES
from tests.restored import restored_tables
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


def test_equivalence(monkeypatch, capsys):
    module = script("equivalence")
    monkeypatch.setattr(sharding, "_FEWEST", sharding._FEWEST)
    monkeypatch.setattr(module.jax.config, "update", lambda *_: None)
    forms = {name: module.FORMS[name] for name in ("plain", "train.ema=0.9")}
    monkeypatch.setattr(module, "FORMS", forms)
    with restored_tables():
        module.main(devices=[1], num_steps=1, size=32)
    _, plain, averaged = capsys.readouterr().out.splitlines()
    assert plain.split() == ["plain", "="]
    assert averaged.split() == ["train.ema=0.9", "="]


def test_eval_memory(workdir, monkeypatch, capsys):
    module = script("eval_memory")
    monkeypatch.setattr(module, "_SHAPE", (40, 60, 3))
    module.measure(str(workdir), window=0)
    assert len(capsys.readouterr().out.split()) == 6


def test_losses(monkeypatch, capsys):
    module = script("losses")
    monkeypatch.setattr(module, "DEVICES", (1, 2))
    monkeypatch.setattr(sys, "argv", ["losses", "--batch=2", "--size=32"])
    module.main()
    rows = capsys.readouterr().out
    assert all(name in rows for name in ("lovasz", "ohem", "enlarged scores"))


def test_large_pictures(workdir, monkeypatch, capsys):
    module = script("large_pictures")
    monkeypatch.setattr(module.log.console, "quiet", False)  # also afterwards
    folder = str(PICTURES / "camvid" / "val")
    module.memory("light_resnet18", folder, "600")
    assert capsys.readouterr().out.splitlines()[-1].startswith("| 600 × 600 | ")
    module.loss(str(workdir), folder, "128")
    *_, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| 64 | ") and row.count("%") == 3


def test_layers(monkeypatch, capsys):
    module = script("layers")
    monkeypatch.setattr(module, "_REPEATS", 1)
    module.main([])
    assert "max-pool 5×5" in capsys.readouterr().out


def test_plan_table(monkeypatch, tmp_path, capsys):
    module = script("plan_table")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_PER_DEVICE", 1)
    devices = targets.attached(2**40)
    monkeypatch.setattr(targets, "open_topology", lambda topology: devices)
    module.main("h100:1", ["default:light_resnet18"])
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith("| default | light_resnet18 | 96 | 4 × cpu | fits | ")


def test_plan_bytes(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = printed(
        "plan_bytes",
        "--config=default:light_resnet18",
        "--per_device=1",
        "--crop_size=32",
    )
    *_, row = table.splitlines()
    _, config, about, planned, said, *_ = (cell.strip() for cell in row.split("|"))
    assert (config, about) == ("default:light_resnet18", "1 × 32², float32")
    assert int(planned.replace(",", "")) > 50
    assert said == "not reported by this device"


def test_sizes(workdir, capsys):
    module = script("sizes")
    module.main(str(workdir), str(PICTURES / "person_part" / "images"), "512,512")
    out = capsys.readouterr().out
    assert "3 images of 3 sizes" in out
    difference = out.partition("largest difference of a probability ")[2].split()[0]
    assert float(difference) < 1e-5


def test_startup_files(capsys):
    script("startup_files").main([12])
    assert len(capsys.readouterr().out.splitlines()[-1].split()) == 8


def printed(name, *arguments):
    """What a script prints, in a process of its own."""
    return subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_predict():
    tables = printed(
        "predict",
        "--variant=light_mobilenet_v2",
        "--size=64",
        "--rounds=1",
        "--peer",
        "--nocompile",  # which takes minutes
    )
    assert "| ours, in its bucket |" in tables
    assert "| PyTorch, eager |" in tables
    assert "| ONNX Runtime, our export |" in tables


def test_train_step():
    tables = printed(
        "train_step",
        "--crop_size=32",
        "--batch_size=4",
        "--rounds=1",
        "--peer",
        "--nocompile",
    )
    assert "| light_resnet18, float32, [4, 32, 32] |" in tables
    assert re.search(r"\d GFLOP/s, \d+% of the [\d,]+ of a product of 2048", tables)
    assert "| PyTorch, eager |" in tables


def test_evaluate():
    tables = printed(
        "evaluate", "--height=40", "--width=64", "--images=5", "--rounds=1"
    )
    assert "| read to score |" in tables
    assert "| the network alone |" in tables


def test_input_pipeline():
    table = printed(
        "input_pipeline", "--crop_size=64", "--batches=1", "--rounds=1", "--peer"
    )
    assert "| torch DataLoader, " in table
    assert "| decoding alone, " in table


def test_startup():
    table = printed(
        "startup",
        "--config=default",
        "--config.train.num_steps=1",
        "--config.train.batch_size=4",
        "--config.data.crop_size=32",
    )
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] == [
        "| --help",
        "| a wrong flag",
        "| cold",
        "| warm",
    ]

"""The whole program with its files in a bucket does what it does with a disk."""

import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import files
from refinenet_jax.weights import torch
from tests import own_folder
from tests.in_process import run
from tests.main_test import TINY, read, start, steps_and_losses, trained  # noqa: F401

SHORT = (
    "--config=default",
    "--config.data.name=folder",
    "--config.model.num_classes=4",
    "--config.data.crop_size=32",
    "--config.train.num_steps=2",
    "--config.train.batch_size=4",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=1",
    "--config.train.eval_every=0",
)


def succeed(*arguments):
    code, out, err = run(*arguments)
    assert code == 0, out + err
    return out


def put(folder, target):
    for path in files.files_below(folder):
        files.upload(path, target / path.relative_to(folder).as_posix())


def digest(workdir):
    return read(workdir / "result.json")["state_sha256"]


def scores(workdir):
    """What eval.json holds, but for what depends on the run."""
    record = read(workdir / "eval.json")
    own = ("provenance", "seconds", "images_per_second", "data_fingerprint")
    return {name: value for name, value in record.items() if name not in own}


@pytest.mark.slow  # three runs of the program
def test_a_short_run_in_a_bucket_ends_with_the_same_bits(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = own_folder.write_folder(tmp_path / "own")
    put(local, bucket / "own")
    for place, own in ((tmp_path, local), (bucket, bucket / "own")):
        out = succeed(
            *SHORT,
            f"--workdir={place}/run",
            f"--config.data.dir={place}/tfds",
            f"--config.data.manual_dir={own}",
        )
    assert f"pictures in {bucket}/run/eval" in out
    here, there = tmp_path / "run", bucket / "run"
    assert digest(there) == digest(here)
    assert steps_and_losses(there) == steps_and_losses(here)
    assert scores(there) == scores(here)
    assert (there / "eval/2.png").read_bytes() == (here / "eval/2.png").read_bytes()
    # Nothing was taken for a path on disk.
    assert sorted(os.listdir(tmp_path)) == ["own", "run", "tfds"]


@pytest.mark.slow  # ten runs of the program
def test_killed_in_a_bucket_and_used_from_it(bucket, trained, tmp_path):  # noqa: F811
    data = f"--config.data.dir={bucket}/data"
    cached = f"--config.data.cache_dir={tmp_path}/cache"
    workdir = bucket / "run"
    job = (*TINY, f"--workdir={workdir}", data)
    process = start(*job)
    log = workdir / "train.jsonl"
    while process.poll() is None and not (
        log.exists() and '"step": 5' in log.read_text()
    ):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "result.json").exists()
    out = succeed(*job, cached)
    assert "going on after step" in out
    assert f"copying {bucket}/data/shapes" in out
    assert digest(workdir) == digest(trained)
    assert steps_and_losses(workdir) == steps_and_losses(trained)

    succeed(*job, cached, "--mode=eval")
    succeed(*TINY, f"--workdir={trained}", "--mode=eval")
    assert scores(workdir) == scores(trained)
    assert (workdir / "eval" / "report.html").exists()

    pixels = np.random.default_rng(0).integers(0, 256, (50, 140, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    files.upload(tmp_path / "wide.png", bucket / "pictures" / "wide.png")
    for place, images in (
        (trained, tmp_path / "wide.png"),
        (workdir, bucket / "pictures"),
    ):
        predict = (*TINY, f"--workdir={place}", "--mode=predict", f"--images={images}")
        succeed(*predict, "--config.predict.probabilities=True")
        assert "1 were there already" in succeed(*predict)
    for name in ("wide.png", "wide_overlay.jpg", "wide.npz"):
        here, there = (place / "predictions" / name for place in (trained, workdir))
        assert there.read_bytes() == here.read_bytes()

    for place in (trained, workdir):
        export = ("--mode=export", f"--images={tmp_path / 'wide.png'}")
        succeed(*TINY, f"--workdir={place}", *export, "--config.export.size=(32, 64)")
    weights = [x / "export" / "network.safetensors" for x in (trained, workdir)]
    here, there = map(torch.read, weights)
    assert here.tensors.keys() == there.tensors.keys()
    assert all(np.array_equal(there.tensors[k], here.tensors[k]) for k in here.tensors)
    said = read(workdir / "export" / "export.json")["formats"]
    assert said["safetensors"]["sha256"] == files.sha256(weights[1])
    assert said["stablehlo"]["agreement"] == 1

    losses = []
    for place in (trained, workdir, f"{workdir}/export/network.safetensors"):
        second = tmp_path / f"second{len(losses)}"
        start_from = f"--config.init_from={place}"
        succeed(*TINY, f"--workdir={second}", start_from, "--config.train.num_steps=2")
        losses.append(steps_and_losses(second))
    assert losses[0] == losses[1] == losses[2]
    succeed(
        *TINY, f"--workdir={bucket}/converted", "--mode=convert", f"--weights={place}"
    )
    assert json.loads((bucket / "converted" / "config.json").read_text())

"""The whole program, from the command line to the files it leaves."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from refinenet_jax import Segmenter
from refinenet_jax.weights.torch import write_safetensors
from tests.in_process import run
from tests.weights.networks import checkpoint_of

REPOSITORY = Path(__file__).parent.parent
TINY = (
    "--config=configs/default.py",
    "--config.train.num_steps=6",
    "--config.train.batch_size=4",
    "--config.train.log_every=1",
    "--config.train.eval_every=3",
    "--config.train.checkpoint_every=2",
    "--config.data.crop_size=32",
)


def start(*arguments, **environment):
    """Starts the program in a process of its own, as people do; gives the process."""
    return subprocess.Popen(
        [sys.executable, "-m", "refinenet_jax.main", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The workdir of a short run of the default job, in a process of its own."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    process = start(*TINY, f"--workdir={workdir}")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    return workdir


def read(path):
    return json.loads(path.read_text())


def steps_and_losses(workdir):
    lines = (workdir / "train.jsonl").read_text().splitlines()
    return [(x["step"], x["loss"]) for x in map(json.loads, lines)]


def test_training_writes_what_the_contract_says(trained):
    assert [step for step, _ in steps_and_losses(trained)] == [1, 2, 3, 4, 5, 6]
    record = json.loads((trained / "train.jsonl").read_text().splitlines()[0])
    assert {"step", "loss", "learning_rate", "images_per_second", "seconds"} <= set(
        record
    )
    assert read(trained / "config.json")["train"]["num_steps"] == 6
    evaluation = read(trained / "eval.json")
    assert evaluation == read(trained / "eval" / "6.json")
    assert evaluation["num_images"] == 100
    matrix = np.asarray(evaluation["confusion_matrix"])
    assert matrix.sum() + evaluation["ignored_pixels"] == 100 * 96 * 128
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = [
        None if u == 0 else d / u for d, u in zip(np.diag(matrix), union, strict=True)
    ]
    assert list(evaluation["per_class_iou"].values()) == pytest.approx(iou)
    known = [value for value in iou if value is not None]
    assert evaluation["mean_iou"] == pytest.approx(np.mean(known))
    assert evaluation["compilations"] == 1
    result = read(trained / "result.json")
    assert result["step"] == 6
    assert result["last"] == {"step": 6, "mean_iou": evaluation["mean_iou"]}
    assert result["best"]["mean_iou"] >= result["last"]["mean_iou"]
    assert result["parameters"] == 13_860_934
    assert len(result["state_sha256"]) == 64
    assert list(trained.glob("events.out.tfevents.*"))
    strip = np.asarray(Image.open(trained / "eval" / "6.png"))
    assert strip.shape[1:] == (3 * 128, 3)
    assert strip.shape[0] > 6 * 96  # headings and a legend


@pytest.mark.slow  # starts the program twice
def test_killed_and_started_again_ends_with_the_same_bits(trained, tmp_path):
    workdir = tmp_path / "killed"
    process = start(*TINY, f"--workdir={workdir}")
    log = workdir / "train.jsonl"
    while process.poll() is None and not (
        log.exists() and '"step": 5' in log.read_text()
    ):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "result.json").exists()
    code, out, err = run(*TINY, f"--workdir={workdir}")
    assert code == 0, out + err
    assert "going on after step" in out
    expected, found = (read(w / "result.json") for w in (trained, workdir))
    assert found["state_sha256"] == expected["state_sha256"]
    assert found["best"] == expected["best"]
    assert found["best"] is not None
    assert steps_and_losses(workdir) == steps_and_losses(trained)


@pytest.mark.slow
def test_a_finished_run_started_again_changes_nothing(trained):
    before = read(trained / "result.json")["state_sha256"]
    code, out, err = run(*TINY, f"--workdir={trained}")
    assert code == 0, out + err
    assert read(trained / "result.json")["state_sha256"] == before


@pytest.mark.slow
def test_a_run_goes_on_with_other_settings(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    # A save comes later than it is due where the one before is still being written.
    newest = max(int(found.name) for found in (workdir / "checkpoints").iterdir())
    assert 2 <= newest < 6
    code, out, err = run(
        *TINY,
        f"--workdir={workdir}",
        "--config.data.flip_probability=0",
        "--config.data.scale_range=(1.5,2.0)",
    )
    assert code == 0, out + err
    assert f"going on after step {newest}" in out
    changes = "flip_probability 0.5 → 0.0, data.scale_range [0.7, 1.3] → [1.5, 2.0]"
    assert f"settings that changed since: data.{changes}" in out
    before, after = map(steps_and_losses, (trained, workdir))
    assert after[:newest] == before[:newest]
    assert [step for step, _ in after[newest:]] == list(range(newest + 1, 7))
    assert after[newest:] != before[newest:]
    assert read(workdir / "config.json")["data"]["flip_probability"] == 0
    assert read(workdir / "eval.json")["step"] == 6

    code, _, err = run(*TINY, f"--workdir={workdir}", "--config.optimizer.name=sgd")
    assert_refused(code, err, "asks for config.optimizer.name='sgd'")
    assert read(workdir / "config.json")["optimizer"]["name"] != "sgd"


def test_eval_mode_repeats_the_evaluation_of_training(trained):
    expected = read(trained / "eval" / "6.json")
    (trained / "eval.json").unlink()
    code, out, err = run(
        *TINY, f"--workdir={trained}", "--mode=eval", "--config.eval.checkpoint=latest"
    )
    assert code == 0, out + err
    found = read(trained / "eval.json")
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    assert found["step"] == 6
    assert "mean iou" in out


@pytest.mark.slow
def test_predict_mode_and_segmenter_agree(trained, tmp_path):
    rng = np.random.default_rng(0)
    pictures = {
        "wide": rng.integers(0, 256, (50, 140, 3), np.uint8),
        "tall": rng.integers(0, 256, (97, 33, 3), np.uint8),
        "small": rng.integers(0, 256, (7, 5, 3), np.uint8),
    }
    folder = tmp_path / "images"
    folder.mkdir()
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / f"{name}.png"), picture[..., ::-1])
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_bytes(b"no image either")
    code, _, err = run(
        *TINY, f"--workdir={trained}", "--mode=predict", f"--images={folder}"
    )
    # The others are done all the same.
    assert_refused(code, err, "left out 1 of 4: ")
    assert "broken.jpg" in err
    written = trained / "predictions"
    summary = read(written / "summary.json")
    assert (summary["images"], summary["compilations"]) == (3, 2)
    assert summary["failed"] == 1
    assert summary["seconds"] > 0
    segmenter = Segmenter.from_checkpoint(trained)
    assert len(segmenter.class_names) == len(segmenter.palette) == 6
    for name, picture in pictures.items():
        labels = segmenter.predict(picture)
        assert labels.dtype == np.uint8
        assert np.array_equal(np.asarray(Image.open(written / f"{name}.png")), labels)
        overlay = Image.open(written / f"{name}_overlay.jpg")
        assert overlay.width == picture.shape[1]
        assert overlay.height > picture.shape[0]  # a legend
    shares = segmenter.probabilities(pictures["small"])
    assert shares.shape == (7, 5, 6)
    assert shares.dtype == np.float32
    assert np.array_equal(shares.argmax(-1), segmenter.predict(pictures["small"]))


@pytest.mark.slow
def test_the_model_of_a_segmenter_gives_logits_in_inference_mode(trained):
    segmenter = Segmenter.from_checkpoint(trained)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype(np.uint8)
    x = segmenter.model.normalize(pixels)
    logits = nnx.jit(lambda model, x: model(x))(segmenter.model, x)
    assert logits.shape == (1, 16, 24, 6)
    assert logits.dtype == np.float32
    enlarged = jax.image.resize(logits, (1, 64, 96, 6), "bilinear")
    agreement = np.mean(segmenter.predict(pixels[0]) == enlarged[0].argmax(-1))
    assert agreement > 0.999  # ties of rounding apart


def test_segmenter_refuses_what_is_no_image(trained):
    segmenter = Segmenter.from_checkpoint(str(trained), "latest")
    for wrong in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1]],
    ):
        with pytest.raises(ValueError, match=r"an image is uint8 \[H,W,3\] RGB"):
            segmenter.predict(wrong)


@pytest.mark.slow  # starts the program several times
def test_init_from_starts_with_the_network_of_another_run(trained, tmp_path):
    code, out, err = run(
        *TINY,
        f"--workdir={tmp_path / 'second'}",
        f"--config.init_from={trained}",
    )
    assert code == 0, out + err
    assert f"starting from the network of {trained}" in out
    (_, first), (_, trained_first) = (
        steps_and_losses(w)[0] for w in (tmp_path / "second", trained)
    )
    # The same first batch and dropout, other weights.
    assert first < 0.9 * trained_first


@pytest.mark.slow  # starts the program several times
def test_exported_and_converted_weights_are_the_same_network(trained, tmp_path):
    weights = "--config.export.formats=('safetensors',)"
    code, out, err = run(*TINY, f"--workdir={trained}", "--mode=export", weights)
    assert code == 0, out + err
    file = trained / "export" / "network.safetensors"
    converted = tmp_path / "converted"
    code, out, err = run(
        *TINY, f"--workdir={converted}", "--mode=convert", f"--weights={file}"
    )
    assert code == 0, out + err
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"SHA-256 {digest[:12]}" in " ".join(out.split())
    original, copy = map(Segmenter.from_checkpoint, (trained, converted))
    assert copy.metadata.weights == {
        "file": str(file),
        "sha256": digest,
        "source": "RefineNet of the PyTorch ports",
    }
    assert copy.class_names == original.class_names
    for one, other in zip(
        *(jax.tree.leaves(nnx.state(s.model)) for s in (original, copy)), strict=True
    ):
        np.testing.assert_array_equal(one, other)

    # What it holds is not trained on in place, but started from.
    code, _, err = run(*TINY, f"--workdir={converted}")
    assert_refused(code, err, f"--config.init_from={converted}")


@pytest.mark.slow  # compiles a larger network
def test_every_option_of_the_network_at_once(tmp_path):
    options = (
        "--config.model.variant=light_mobilenet_v2",
        "--config.model.input_scales=(1.2,0.6)",
        "--config.model.cascade=2_cascaded",
        "--config.model.pooling=improved",
        "--config.model.pooling_stages=2",
        "--config.model.fusion_resize=bicubic",
        "--config.model.void_output=True",
        "--config.model.batch_norm=frozen",
        "--config.train.num_steps=1",
    )
    first, second = tmp_path / "first", tmp_path / "second"
    file = first / "export" / "network.safetensors"
    for arguments in (
        (f"--workdir={first}",),
        (
            f"--workdir={first}",
            "--mode=export",
            "--config.export.formats=('safetensors',)",
        ),
        (f"--workdir={second}", "--mode=convert", f"--weights={file}"),
        (f"--workdir={second}", "--mode=eval"),
    ):
        code, out, err = run(*TINY, *options, *arguments)
        assert code == 0, out + err
    one, other = (read(workdir / "eval.json") for workdir in (first, second))
    assert one["confusion_matrix"] == other["confusion_matrix"]
    assert np.shape(one["confusion_matrix"]) == (6, 6)


def test_bad_weights_are_one_clear_line_and_exit_code_2(tmp_path):
    network = tmp_path / "voc.safetensors"
    write_safetensors(network, checkpoint_of("light_resnet18"), {})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(network.read_bytes()[:100_000])
    workdir = tmp_path / "refused"
    for arguments, message in (
        ([f"--weights={cut}"], f"{cut} is no .safetensors file or is cut short"),
        ([f"--weights={network}"], "a classifier of 21 outputs, this network has 6"),
    ):
        code, _, err = run(*TINY, f"--workdir={workdir}", "--mode=convert", *arguments)
        assert_refused(code, err, message)
    assert not workdir.exists()


def run_on(processes, devices, *arguments):
    """Runs the program in new processes, with so many devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    several = (f"--coordinator_address={address}", f"--num_processes={processes}")
    started = [
        start(
            *arguments,
            *(() if processes == 1 else (*several, f"--process_id={index}")),
            JAX_NUM_CPU_DEVICES=str(devices),
        )
        for index in range(processes)
    ]
    try:
        for process in started:
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, out + err
    finally:
        for process in started:
            process.kill()


def losses_beside(workdir, expected_workdir):
    """The losses of two runs that are the same but for the hardware."""
    found, expected = map(steps_and_losses, (workdir, expected_workdir))
    assert [step for step, _ in found] == [step for step, _ in expected]
    found, expected = ([loss for _, loss in rows] for rows in (found, expected))
    # Sums in another order differ in the last bit, and where two values of a max-pool or
    # a ReLU all but tie, the gradient then goes another way. Measured: 3.7e-5.
    assert found == pytest.approx(expected, rel=1e-4)
    return found, expected


@pytest.mark.slow  # both processes compile programs of their own
def test_two_processes_make_the_same_run(trained, tmp_path):
    # Two devices each, instead of one process with four.
    run_on(2, 2, *TINY, f"--workdir={tmp_path}")
    found, expected = losses_beside(tmp_path, trained)
    assert found[:3] == pytest.approx(expected[:3], rel=1e-6)  # measured: 1.0e-7
    evaluation = read(tmp_path / "eval.json")
    assert evaluation["num_images"] == 100
    matrix = np.asarray(evaluation["confusion_matrix"])
    assert matrix.sum() + evaluation["ignored_pixels"] == 100 * 96 * 128


# The number of steps does not change the learning rate, which is that of a first step of
# the warm-up, and eight devices have an image each.
_STEADY = (
    *TINY,
    "--config.optimizer.schedule=constant",
    "--config.optimizer.warmup_steps=0",
    "--config.optimizer.learning_rate=1e-4",
    "--config.train.batch_size=8",
    "--config.train.eval_every=0",
)


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """The workdir of a run that never stopped, on four devices."""
    workdir = tmp_path_factory.mktemp("runs") / "steady"
    code, out, err = run(*_STEADY, f"--workdir={workdir}")
    assert code == 0, out + err
    return workdir


@pytest.mark.slow  # starts the program several times
@pytest.mark.parametrize(
    "hardware", [[(1, 4), (1, 2), (1, 8)], [(2, 2), (1, 2), (2, 1)]]
)
def test_a_run_goes_on_with_other_devices_and_processes(hardware, steady, tmp_path):
    for number, (processes, devices) in enumerate(hardware, start=1):
        steps = f"--config.train.num_steps={2 * number}"
        run_on(processes, devices, *_STEADY, steps, f"--workdir={tmp_path}")
    losses_beside(tmp_path, steady)


@pytest.mark.slow  # starts the program several times
def test_a_run_goes_on_with_another_batch_size(steady, tmp_path):
    arguments = (*_STEADY, f"--workdir={tmp_path}")
    for batch_size, num_steps in ((8, 2), (4, 4), (16, 5)):
        code, out, err = run(
            *arguments,
            f"--config.train.batch_size={batch_size}",
            f"--config.train.num_steps={num_steps}",
        )
        assert code == 0, out + err
    position = read(tmp_path / "checkpoints" / "5" / "data" / "metadata")
    assert position == {"next_example": 2 * 8 + 2 * 4 + 16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.batch_size=6"], "multiple of the 4 devices"),
        (["--config.data.eval_split=test"], "known: train, val"),
        (["--config.model.num_classes=7"], "shapes has 6 classes"),
    ],
)
def test_what_does_not_fit_is_one_clear_line_and_exit_code_2(
    arguments, message, tmp_path
):
    workdir = tmp_path / "refused"
    code, _, err = run(*TINY, f"--workdir={workdir}", *arguments)
    assert_refused(code, err, message)
    assert not (workdir / "checkpoints").exists()


def test_data_that_is_not_there_is_refused(tmp_path):
    code, _, err = run(
        "--config=configs/voc.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.manual_dir={tmp_path}",
        f"--config.data.dir={tmp_path / 'prepared'}",
    )
    assert_refused(code, err, "config.data.manual_dir")
    assert "VOCdevkit" in err


@pytest.mark.parametrize("fault", ["garbage", "size", "value"])
def test_a_bad_file_of_a_data_set_is_refused_by_name(fault, tmp_path):
    raw = tmp_path / "CamVid"
    for split in ("train", "val"):
        for folder, channels in ((split, 3), (f"{split}annot", 1)):
            (raw / folder).mkdir(parents=True)
            pixels = np.full((24, 36, channels), 3, np.uint8)
            cv2.imwrite(str(raw / folder / "scene.png"), pixels)
        (raw / f"{split}.txt").write_text("scene\n")
    if fault == "garbage":
        (raw / "val" / "scene.png").write_bytes(b"no picture")
    elif fault == "size":
        cv2.imwrite(str(raw / "valannot" / "scene.png"), np.zeros((36, 24), np.uint8))
    else:
        cv2.imwrite(
            str(raw / "valannot" / "scene.png"), np.full((24, 36), 42, np.uint8)
        )
    code, _, err = run(
        "--config=configs/camvid.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.manual_dir={raw}",
        f"--config.data.dir={tmp_path / 'prepared'}",
    )
    assert_refused(code, err, "scene.png")
    assert {"garbage": "val/scene.png", "size": "36", "value": "42"}[fault] in err
    assert not list((tmp_path / "prepared").glob("*/1.0.0"))


def test_nothing_to_predict_is_refused(trained, tmp_path):
    base = (*TINY, f"--workdir={trained}", "--mode=predict")
    assert_refused(*run(*base, f"--images={tmp_path}")[::2], "no image there")


def test_a_workdir_without_checkpoint_is_refused(tmp_path):
    for mode in ("eval", "predict"):
        code, _, err = run(
            *TINY, f"--workdir={tmp_path}", f"--mode={mode}", f"--images={__file__}"
        )
        assert_refused(code, err, "holds no checkpoints/")


def test_another_network_in_the_workdir_is_refused(trained):
    before = read(trained / "config.json")
    code, _, err = run(
        *TINY, f"--workdir={trained}", "--config.model.variant=light_resnet50"
    )
    assert_refused(code, err, "holds a network with variant='light_resnet18'")
    assert "asks for variant='light_resnet50'" in err
    assert read(trained / "config.json") == before
    code, _, err = run(
        *TINY,
        f"--workdir={trained}",
        "--mode=eval",
        "--config.model.variant=light_resnet101",
    )
    assert_refused(code, err, "asks for variant='light_resnet101'")


@pytest.mark.slow  # a learning rate of its own is a program of its own to compile
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_steps(tmp_path):
    code, _, err = run(
        *TINY,
        f"--workdir={tmp_path}",
        "--config.optimizer.learning_rate=1e38",
        "--config.optimizer.clip_norm=0",
    )
    assert_refused(code, err, "loss or gradient is no finite number at step")
    assert "config.optimizer.learning_rate" in err


def assert_refused(code, err, message):
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err

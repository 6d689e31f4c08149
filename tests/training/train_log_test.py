import io
import json
import struct
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from refinenet_jax import log
from refinenet_jax.errors import UserError
from refinenet_jax.training import train_log as train_log_module
from refinenet_jax.training.train_log import TrainLog


def metrics(loss):
    names = ("loss", "learning_rate", "gradient_norm")
    return dict(zip(names, map(jnp.float32, (loss, 0.5, 2.0)), strict=True))


def train_log(folder, first_step=0):
    return TrainLog(folder, first_step=first_step, num_steps=10, batch_size=4)


def lines(folder):
    return [json.loads(x) for x in (folder / "train.jsonl").read_text().splitlines()]


def test_a_line_holds_the_last_loss_and_the_mean_since_the_line_before(tmp_path):
    run = train_log(tmp_path)
    for step, loss in enumerate((4.0, 2.0, 1.0, 0.5), start=1):
        run.add(step, metrics(loss))
        if step in (3, 4):
            run.write(step)
    run.close()
    first, second = lines(tmp_path)
    assert (first["step"], first["loss"]) == (3, 1.0)
    assert first["loss_mean"] == pytest.approx(7 / 3)
    assert (second["step"], second["loss_mean"]) == (4, 0.5)
    assert first["images_per_second"] > 0
    assert second["seconds"] >= first["seconds"]
    assert first["learning_rate"] == 0.5
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_bar_and_line_tell_one_estimate(tmp_path, monkeypatch):
    terminal = Console(
        file=io.StringIO(), width=120, force_terminal=True, color_system=None
    )
    monkeypatch.setattr(log, "console", terminal)
    run = train_log(tmp_path)
    monkeypatch.setattr(run, "seconds_left", lambda: 754.0)
    with log.progress("training", 10, left=run.seconds_left) as on_step:
        run.add(1, metrics(1.0))
        on_step()
        run.write(1)
    run.close()
    shown = terminal.file.getvalue()
    assert shown.count("12:34 left") == 1
    assert shown.count("left 12:34") >= 1


def test_non_finite_losses_are_named_by_step(tmp_path):
    run = train_log(tmp_path)
    for step, loss in enumerate((1.0, float("nan"), 1.0, float("inf")), start=5):
        run.add(step, metrics(loss))
    assert run.non_finite_steps() == [6, 8]


def test_going_on_drops_the_lines_beyond_the_checkpoint(tmp_path):
    run = train_log(tmp_path)
    for step in (1, 2, 3):
        run.add(step, metrics(step))
        run.write(step)
    run.close()
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    train_log(tmp_path, first_step=2).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test lets pass; metrics are ready when their event is."""
    now = types.SimpleNamespace(seconds=0.0)
    time = types.SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(train_log_module, "time", time)
    ready = types.SimpleNamespace(
        block_until_ready=lambda found: found["step"].wait(30),
        process_index=jax.process_index,
        device_get=lambda found: [metrics(1.0) for _ in found],
    )
    monkeypatch.setattr(train_log_module, "jax", ready)
    return now


def test_only_what_the_devices_wait_counts_as_waiting(tmp_path, clock):
    run = train_log(tmp_path)
    first, second, third = ({"step": threading.Event()} for _ in range(3))
    with run.waiting_for_input():
        clock.seconds = 1  # nothing is begun: counts
    run.add(1, first)
    with run.waiting_for_input():
        clock.seconds = 11  # the devices work all the while
    run.add(2, second)
    with run.waiting_for_input():
        clock.seconds = 15
        first["step"].set()
        second["step"].set()
        run._finished[-1].result(30)
        clock.seconds = 17  # two seconds without work
    run.add(3, third)
    third["step"].set()
    run._finished[-1].result(30)
    with run.waiting_for_input():
        clock.seconds = 20  # three more
    run.write(3)
    run.close()
    [line] = lines(tmp_path)
    assert line["input_share"] == pytest.approx((1 + 2 + 3) / 20)


def test_the_host_is_only_so_far_ahead_of_the_devices(tmp_path, clock):
    run = train_log(tmp_path)
    steps = [{"step": threading.Event()} for _ in range(3)]
    run.add(1, steps[0])
    run.add(2, steps[1])
    third = threading.Thread(target=run.add, args=(3, steps[2]))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    steps[0]["step"].set()
    third.join(30)
    assert not third.is_alive()
    for step in steps:
        step["step"].set()
    run.close()


def test_going_on_leaves_out_lines_that_are_damaged(tmp_path, capsys):
    good = b'{"step": 1, "loss": 1.0}\n'
    damaged = [b"\xff\xfe\n", b"{\n", b"[]\n", b'{"step": "1"}\n', b'{"loss": 1.0}\n']
    (tmp_path / "train.jsonl").write_bytes(good + b"".join(damaged) + good)
    train_log(tmp_path, first_step=2).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 1]
    assert "left out 5 lines of" in capsys.readouterr().out


def test_a_folder_in_place_of_the_losses_is_told(tmp_path):
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(UserError, match=r"train.jsonl cannot be read .*: move it away"):
        train_log(tmp_path)


def test_in_a_bucket_whole_files_are_written(bucket):
    run = train_log(bucket)
    for step in (1, 2, 3):
        run.add(step, metrics(step))
        run.write(step)
        assert [line["step"] for line in lines(bucket)] == list(range(1, step + 1))
        scores = dict.fromkeys(("mean_iou", "pixel_accuracy", "mean_accuracy"), 0.5)
        run.evaluation(step, scores, np.zeros((4, 6, 3), np.uint8))
    run.close()
    run = train_log(bucket, first_step=2)
    run.add(3, metrics(7))
    run.write(3)
    run.close()
    assert [line["loss"] for line in lines(bucket)] == [1.0, 2.0, 7.0]
    events = sorted(x for x in bucket.iterdir() if x.name.startswith("events.out"))
    found = [record for path in events for record in records(path.read_bytes())]
    losses = [
        (event.step, value.simple_value)
        for event in found
        for value in event.summary.value
        if value.tag == "train/loss"
    ]
    assert losses == [(1, 1.0), (2, 2.0), (3, 3.0), (3, 7.0)]
    tags = [value.tag for event in found for value in event.summary.value]
    assert tags.count("eval/pictures") == 3


def records(content):
    """The events of a file: length, checksum, event, checksum each."""
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]

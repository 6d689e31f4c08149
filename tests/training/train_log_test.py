import json

import jax.numpy as jnp
import pytest

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

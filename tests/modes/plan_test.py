"""Mode plan, for what is attached and for what is not."""

import json

import pytest

from refinenet_jax import main, memory
from refinenet_jax.errors import UserError
from refinenet_jax.models import add_backbone
from refinenet_jax.planning import targets
from tests.restored import restored_tables
from tests.tiny import TINY

SMALL = (
    "--config=default",
    "--mode=plan",
    "--config.data.crop_size=32",
    "--config.train.batch_size=4",
    "--config.model.cascade=single",
    "--config.model.pooling_stages=1",
    "--config.eval.buckets=((32,64),)",
)


def plan(workdir, *arguments):
    main.main(["refinenet", *SMALL, f"--workdir={workdir}", *arguments])
    return json.loads((workdir / "plan.json").read_text())


@pytest.mark.slow
def test_what_is_attached_is_planned_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with restored_tables():
        add_backbone("tiny", TINY)
        found = plan(tmp_path, "--config.model.variant=light_tiny")
    assert (found["platform"], found["topology"], found["devices"]) == ("cpu", None, 4)
    assert found["fits"]
    assert found["bound"] is None
    assert found["batch_per_device"] == 1
    assert found["flops_per_image"] > 1e5
    # Adam's two moments and its count.
    sizes = found["bytes_per_device"]
    assert sizes["optimizer"] == 2 * 4 * found["parameters"] + 8
    assert found["collective_bytes_per_step"] >= 4 * found["parameters"]
    [evaluation] = found["evaluation"]
    assert evaluation["name"] == "the evaluation of 4 images of 32 x 64"
    assert "fits: " in capsys.readouterr().out


@pytest.mark.slow
def test_the_largest_batch_is_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "device_bytes", lambda: 4_000_000)
    with restored_tables():
        add_backbone("tiny", TINY)
        found = plan(
            tmp_path,
            "--config.model.variant=light_tiny",
            "--config.train.batch_size=256",
            "--config.plan.search",
        )
    assert not found["fits"]
    assert [row["remat"] for row in found["search"]] == ["none", "blocks", "all"]
    for row in found["search"]:
        assert 0 < row["batch_per_device"] < 64
        assert row["bytes"] <= 4_000_000
        assert row["accumulate"] in (None, 2, 4, 8, 16, 32, 64)
    assert "model.remat=all: " in capsys.readouterr().out


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train.batch_size=3 must be a multiple of"):
        plan(tmp_path, "--config.train.batch_size=3")


def test_other_modes_take_no_topology():
    with pytest.raises(UserError, match="--topology goes with --mode=plan"):
        main.main(["refinenet", "--config=default", "--topology=h100:1"])


def planned_for(name):
    """Skips where the compiler is not installed."""
    try:
        targets.refuse_missing_compiler(targets.parse(name))
    except UserError as error:
        return pytest.mark.skip(reason=str(error))
    return pytest.mark.slow


@pytest.mark.parametrize(
    "topology",
    [
        pytest.param("h100:8", marks=planned_for("h100:8")),
        pytest.param("v5e:2x4", marks=planned_for("v5e:2x4")),
    ],
)
def test_what_is_not_attached_is_planned_for(topology, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    batch = "--config.train.batch_size=8"
    dtype = "--config.model.dtype=bfloat16"
    # At this size, and at one image a device, jax 0.10.2 needs for GPUs what `Conv` and
    # `weighted` do for it.
    crop = f"--config.data.crop_size={512 if topology == 'h100:8' else 32}"
    found = plan(tmp_path, f"--topology={topology}", batch, crop, dtype)
    assert (found["topology"], found["devices"]) == (topology, 8)
    assert found["fits"]
    assert found["bound"]["seconds"] > 0
    # Gradients are added up, in float32 or in bfloat16.
    assert found["collective_bytes_per_step"] > 2 * 0.9 * found["parameters"]
    assert {each["layer"] for each in found["float32"]} == {"loss"}
    out, err = capfd.readouterr()
    assert f"{topology}, not attached" in out
    assert not err

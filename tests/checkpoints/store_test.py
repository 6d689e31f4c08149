import dataclasses
import json
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from refinenet_jax.checkpoints import digests, reading, store
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import (
    Checkpoints,
    open_checkpoints,
    with_sharding,
)
from refinenet_jax.errors import UserError
from refinenet_jax.models import Architecture
from refinenet_jax.sharding import global_layout
from refinenet_jax.training.state import TrainState, sha256

ARCHITECTURE = Architecture("light_resnet18", 6)
METADATA = Metadata(ARCHITECTURE, ("a", "b"), ((0, 0, 0), (9, 9, 9)), optimizer="sgd")


def a_state(value, step):
    sharding = global_layout().state
    state = TrainState(
        step=jnp.asarray(step, jnp.int32),
        params={"backbones": {"w": jnp.full((5, 3), value)}},
        batch_stats={"mean": jnp.full(3, -value)},
        opt_state=({"trace": jnp.full((5, 3), 2 * value)},),
        key=jnp.asarray([0, 7], jnp.uint32),
    )
    return jax.device_put(state, sharding)


def data():
    return iter(grain.MapDataset.range(1000).batch(2).to_iter_dataset())


def keep(checkpoints, step, state, batches, score):
    metadata = dataclasses.replace(METADATA, mean_iou=score)
    checkpoints.save(step, state.items(), batches.get_state(), metadata)


def save(workdir, scores, keep_latest=2):
    """Saves step 1, 2, ... with those mean IoUs; None: not evaluated."""
    checkpoints = Checkpoints(workdir, keep_latest=keep_latest)
    batches = data()
    for step, score in enumerate(scores, start=1):
        next(batches)
        keep(checkpoints, step, a_state(float(step), step), batches, score)
    checkpoints.close()


def restore(workdir, metadata=METADATA):
    checkpoints = Checkpoints(workdir, keep_latest=2)
    batches = data()
    abstract = with_sharding(a_state(0.0, 0), global_layout().state)
    restored = checkpoints.restore_latest(abstract.items(), metadata)
    checkpoints.close()
    if restored is None:
        return None, batches
    batches.set_state(restored.position)
    return TrainState.from_items(restored.items), batches


def damage(workdir, step):
    for path in (workdir / "checkpoints" / str(step)).rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:7])


def test_restores_state_and_position_in_the_data(tmp_path):
    save(tmp_path, [None, 0.5, None])
    state, batches = restore(tmp_path)
    assert sha256(state) == sha256(a_state(3.0, 3))
    assert int(state.step) == 3
    assert state.key.tolist() == [0, 7]
    assert next(batches).tolist() == [6, 7]


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path)[0] is None


def test_keeps_the_latest_and_the_best(tmp_path):
    save(tmp_path, [0.1, 0.9, None, 0.3, None, 0.2])
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [2, 5, 6]
    checkpoints = open_checkpoints(tmp_path)
    assert vars(checkpoints.best()) == {"step": 2, "mean_iou": 0.9}
    assert checkpoints.score(5) is None
    assert load(tmp_path, "best")[0] == dataclasses.replace(
        METADATA, step=2, mean_iou=0.9
    )
    assert load(tmp_path, "latest")[0].step == 6


def load(workdir, which):
    def check(metadata):
        assert metadata.architecture == ARCHITECTURE

    sharding = global_layout().state
    return open_checkpoints(workdir).load_network(which, sharding, check)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network of two arrays in place of one that is built."""
    state = a_state(0.0, 0)
    weights = (state.params, state.batch_stats)
    monkeypatch.setattr(store, "_abstract_weights", lambda metadata: weights)


def test_reads_the_network_alone(tmp_path):
    save(tmp_path, [None])
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "training")
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "data")
    metadata, params, batch_stats = load(tmp_path, "best")
    assert metadata.step == 1
    assert np.array_equal(params["backbones"]["w"], np.full((5, 3), 1.0))
    assert np.array_equal(batch_stats["mean"], np.full(3, -1.0))


def test_a_damaged_best_checkpoint_gives_way_to_the_newest_to_predict_with(
    tmp_path, capsys
):
    save(tmp_path, [0.9, None, None])
    damage(tmp_path, 1)
    assert load(tmp_path, "best")[0].step == 3
    assert "checkpoints/1 is damaged" in capsys.readouterr().out
    for step in (2, 3):
        damage(tmp_path, step)
    with pytest.raises(UserError, match="none of the checkpoints can be read"):
        load(tmp_path, "latest")


@pytest.mark.parametrize("item", ["network", "training", "data", "metadata"])
def test_every_file_that_may_be_damaged(tmp_path, item):
    save(tmp_path, [0.5, 0.6])
    for path in (tmp_path / "checkpoints" / "2" / item).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    state, _ = restore(tmp_path)
    assert int(state.step) == 1
    assert [p.name for p in (tmp_path / "damaged_checkpoints").iterdir()] == ["2_0"]


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    save(tmp_path, [None, None, None])
    damage(tmp_path, 3)
    state, batches = restore(tmp_path)
    assert int(state.step) == 2
    assert next(batches).tolist() == [4, 5]
    said = capsys.readouterr().out
    assert "checkpoints/3 is damaged" in said
    assert "taking the one before it" in said
    # Nothing is lost, and the step can be saved again.
    assert (tmp_path / "damaged_checkpoints" / "3_0" / "network").is_dir()
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    keep(checkpoints, 3, a_state(3.5, 3), batches, None)
    checkpoints.close()
    assert sha256(restore(tmp_path)[0]) == sha256(a_state(3.5, 3))


def test_metadata_of_another_form_is_no_traceback(tmp_path):
    save(tmp_path, [0.5])
    path = tmp_path / "checkpoints/1/metadata/metadata"
    path.write_text('{"variant": "light_resnet18"}')
    with pytest.raises(UserError, match="none of the checkpoints can be read"):
        restore(tmp_path)


def test_converted_weights_are_opened_but_not_trained_on(tmp_path):
    state = a_state(4.0, 0)
    weights = {"file": "a.pth", "sha256": "0" * 64, "source": "somewhere"}
    checkpoints = Checkpoints(tmp_path, keep_latest=1)
    checkpoints.save_network(
        state.params,
        state.batch_stats,
        dataclasses.replace(METADATA, weights=weights),
    )
    with pytest.raises(UserError, match="already holds checkpoints"):
        checkpoints.save_network(state.params, state.batch_stats, METADATA)
    checkpoints.close()
    metadata, params, _ = load(tmp_path, "best")
    assert (metadata.step, metadata.mean_iou) == (0, None)
    assert metadata.weights == weights
    assert np.array_equal(params["backbones"]["w"], np.full((5, 3), 4.0))
    with pytest.raises(UserError, match=f"--config.init_from={tmp_path}"):
        restore(tmp_path)


def test_only_damaged_checkpoints(tmp_path):
    save(tmp_path, [None, None])
    damage(tmp_path, 1)
    damage(tmp_path, 2)
    with pytest.raises(UserError, match="none of the checkpoints can be read"):
        restore(tmp_path)
    assert not (tmp_path / "damaged_checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": Architecture("resnet50", 6)},
            "with variant='light_resnet18', the config asks for variant='resnet50'",
        ),
        (
            {"architecture": Architecture("light_resnet18", 21)},
            "holds a network with num_classes=6, the config asks for num_classes=21",
        ),
        (
            {"architecture": Architecture("light_resnet18", 6, input_scales=(1.2,))},
            "config asks for input_scales=",
        ),
        ({"optimizer": "adamw"}, "a run with sgd.*config.optimizer.name='adamw'"),
    ],
)
def test_another_network_is_refused_with_both_named(tmp_path, change, message):
    save(tmp_path, [None])
    with pytest.raises(UserError, match=message):
        restore(tmp_path, dataclasses.replace(METADATA, **change))
    assert (tmp_path / "checkpoints" / "1" / "network").is_dir()


def test_a_folder_that_is_no_workdir(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoints/"):
        open_checkpoints(tmp_path)
    save(tmp_path, [])
    with pytest.raises(UserError, match="holds no checkpoint: name"):
        load(tmp_path, "best")


def test_metadata_is_plain_json(tmp_path):
    save(tmp_path, [None])
    text = (tmp_path / "checkpoints/1/metadata/metadata").read_text()
    assert Metadata.from_json(json.loads(text)).architecture == ARCHITECTURE


def test_scores_are_known_while_a_save_is_still_under_way(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    batches = data()
    for step, score in enumerate((0.25, 0.75, 0.5), start=1):
        keep(checkpoints, step, a_state(1.0, step), batches, score)
        assert vars(checkpoints.score(step)) == {"step": step, "mean_iou": score}
    assert vars(checkpoints.best()) == {"step": 2, "mean_iou": 0.75}
    checkpoints.close()


@pytest.mark.slow
def test_a_byte_that_changed_never_gives_other_weights(tmp_path):
    save(tmp_path / "kept", [None])
    wanted = sha256(a_state(1.0, 1))
    files = [p for p in (tmp_path / "kept").rglob("*") if p.is_file()]
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "kept", workdir)
        chosen = workdir / rng.choice(files).relative_to(tmp_path / "kept")
        content = bytearray(chosen.read_bytes() or b"\0")
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        chosen.write_bytes(content)
        try:
            state, batches = restore(workdir)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert state is None or sha256(state) == wanted
            if state is not None:
                assert next(batches).tolist() == [2, 3]
    assert refused > 20


class Flaky:
    """Fails at the first few reads, as a network that hiccups."""

    def __init__(self, times):
        self.left = times
        self.restore = ocp.Checkpointer.restore

    def __call__(self, reader, *arguments, **options):
        if self.left:
            self.left -= 1
            raise OSError("Connection reset by peer")
        return self.restore(reader, *arguments, **options)


def test_a_read_that_fails_once_is_tried_again(tmp_path, monkeypatch, capsys):
    save(tmp_path, [None, None])
    monkeypatch.setattr(reading, "_PAUSES", (0.0, 0.0))
    flaky = Flaky(2)
    monkeypatch.setattr(
        ocp.Checkpointer, "restore", lambda *given, **options: flaky(*given, **options)
    )
    state, _ = restore(tmp_path)
    assert sha256(state) == sha256(a_state(2.0, 2))
    assert "Connection reset by peer; trying again" in capsys.readouterr().out


def test_a_store_that_fails_ends_the_run_and_changes_nothing(tmp_path, monkeypatch):
    save(tmp_path, [None, None])
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(reading, "_PAUSES", (0.0,))
    flaky = Flaky(1000)
    monkeypatch.setattr(
        ocp.Checkpointer, "restore", lambda *given, **options: flaky(*given, **options)
    )
    with pytest.raises(UserError, match="cannot be read now .Connection reset"):
        restore(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_tree_is_refused_with_both_sides(tmp_path):
    save(tmp_path, [None])
    other = a_state(0.0, 0)
    other = dataclasses.replace(other, opt_state=({"trace": jnp.zeros((4, 3))},))
    abstract = with_sharding(other, global_layout().state)
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    with pytest.raises(UserError, match=r"trace: \[5, 3\] there, \[4, 3\] here"):
        checkpoints.restore_latest(abstract.items(), METADATA)
    checkpoints.close()


def test_a_checkpoint_of_before_digests_is_read(tmp_path):
    save(tmp_path, [None])
    shutil.rmtree(tmp_path / "checkpoints/1/digests")
    assert sha256(restore(tmp_path)[0]) == sha256(a_state(1.0, 1))


def test_a_position_that_was_counted_in_batches_is_one_in_examples(tmp_path):
    state = a_state(1.0, 1)
    metadata = dataclasses.replace(METADATA, config={"train": {"batch_size": 8}})
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    checkpoints.save(1, state.items(), {"next_batch": 1000}, metadata)
    checkpoints.wait()
    abstract = with_sharding(state, global_layout().state)
    restored = checkpoints.restore_latest(abstract.items(), METADATA)
    checkpoints.close()
    assert restored.position == {"next_example": 8000}


def test_digests_of_a_sharded_array_are_compared_part_by_part():
    layout = global_layout()
    array = jax.device_put(jnp.arange(24.0).reshape(8, 3), layout.batch)
    found = digests.digest_arrays({"w": array})
    assert len(found["w"]["parts"]) == layout.num_devices
    assert digests.differing({"w": array}, found) == []
    whole = jax.device_put(
        np.arange(24.0, dtype=np.float32).reshape(8, 3), layout.state
    )
    assert digests.differing({"w": whole}, found) == []
    assert digests.differing({"w": whole.at[7, 2].set(0)}, found) == ["w"]

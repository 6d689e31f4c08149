import dataclasses
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from refinenet_jax.config import default
from refinenet_jax.errors import UserError
from refinenet_jax.modes import train
from refinenet_jax.sharding import global_layout
from refinenet_jax.training.state import TrainState


def test_non_finite_steps_are_named_with_the_remedy():
    train._refuse_non_finite([], Path("runs/x"))
    with pytest.raises(UserError, match="at step 12, 13: lower config.optimizer"):
        train._refuse_non_finite([12, 13], Path("runs/x"))


@pytest.mark.parametrize(
    ("step", "every", "due"), [(4, 2, True), (5, 2, False), (4, 0, False)]
)
def test_what_is_due(step, every, due):
    assert train._is_due(step, every) is due


def test_a_step_that_needs_something_of_the_host_is_refused(tmp_path):
    """The loop with a step that brings its learning rate along from the host."""

    class Nothing:
        def __getattr__(self, name):
            return lambda *given, **options: None

    layout = global_layout()
    arrays = {"w": np.zeros((len(jax.devices()), 2), np.float32)}
    state = TrainState(
        *jax.device_put((np.int32(0), arrays["w"], {}, {}, np.zeros(2)), layout.state)
    )
    scale = jax.jit(lambda params, rate: params * rate)

    def step(state, batch):
        params = scale(state.params, np.float32(0.5))
        return dataclasses.replace(state, params=params), {"loss": params.sum()}

    config = default()
    config.train.num_steps = 1
    told = types.SimpleNamespace(dataset="shapes")
    run = train._Run(
        config, tmp_path, told, layout, iter([arrays] * 2), Nothing(), Nothing()
    )
    with pytest.raises(RuntimeError, match="Disallowed host-to-device transfer"):
        train._train(run, state, step)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", None])
def test_a_config_json_that_is_garbled_stops_nothing(content, tmp_path, capsys):
    if content is None:
        (tmp_path / "config.json").mkdir()
    else:
        (tmp_path / "config.json").write_bytes(content)
    train._tell_going_on(3, tmp_path, default())
    assert "config.json cannot be read: what changed" in capsys.readouterr().out


def test_a_second_run_in_a_workdir_is_refused(tmp_path):
    with (
        train._alone_in(tmp_path),
        pytest.raises(
            UserError, match=rf"a training in {tmp_path} goes on already, by "
        ),
        train._alone_in(tmp_path),
    ):
        raise AssertionError
    with train._alone_in(tmp_path):
        pass

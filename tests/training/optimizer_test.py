import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax.training.optimizer import build_optimizer, schedule


def rates(name, num_steps, **settings):
    rate = schedule(name, 0.1, num_steps, **settings)
    return [float(rate(step)) for step in range(num_steps)]


def test_constant():
    assert rates("constant", 3) == pytest.approx([0.1] * 3)


def test_step_decays_at_shares_of_the_run():
    settings = {"step_at": (0.5, 0.8), "step_factor": 0.1}
    wanted = [0.1] * 5 + [0.01] * 3 + [0.001] * 2
    assert rates("step", 10, **settings) == pytest.approx(wanted)


def test_poly_and_cosine_by_hand():
    poly = rates("poly", 4, poly_power=0.9)
    assert poly == pytest.approx([0.1 * (1 - k / 4) ** 0.9 for k in range(4)])
    cosine = rates("cosine", 4)
    assert cosine == pytest.approx(
        [0.05 * (1 + np.cos(np.pi * k / 4)) for k in range(4)]
    )


@pytest.mark.parametrize("name", ["constant", "step", "poly", "cosine"])
def test_warm_up_rises_to_the_full_rate_and_the_schedule_follows(name):
    warm = rates(name, 20, warmup_steps=4)
    assert warm[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert warm[4] == pytest.approx(0.1)
    if name == "step":
        assert warm[9:11] == pytest.approx([0.1, 0.01])


def test_a_run_shorter_than_its_warm_up():
    assert rates("cosine", 3, warmup_steps=10) == pytest.approx([0.01, 0.02, 0.03])


def test_sgd_by_hand_with_a_slower_backbone():
    params = nnx.State(
        {
            "backbones": {"w": nnx.Param(jnp.ones(1))},
            "decoder": {"w": nnx.Param(jnp.ones(1))},
        }
    )
    gradient = nnx.State(
        {
            "backbones": {"w": nnx.Param(jnp.ones(1))},
            "decoder": {"w": nnx.Param(jnp.ones(1))},
        }
    )
    optimizer = build_optimizer(
        "sgd", 0.1, momentum=0.5, weight_decay=0.1, encoder_multiplier=0.1
    )
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    # Decoder: 1 - 0.1 × 1.1 = 0.89; velocity 0.5 × 1.1 + 1 + 0.1 × 0.89 = 1.639.
    assert float(params["decoder"]["w"][...][0]) == pytest.approx(0.89 - 0.1639)
    # Backbone: 1 - 0.01 × 1.1 = 0.989; velocity 0.55 + 1 + 0.0989 = 1.6489.
    assert float(params["backbones"]["w"][...][0]) == pytest.approx(0.989 - 0.016489)


def test_clipping_bounds_the_whole_gradient():
    params = nnx.State({"decoder": {"w": nnx.Param(jnp.zeros(2))}})
    gradient = nnx.State({"decoder": {"w": nnx.Param(jnp.asarray([3.0, 4.0]))}})
    optimizer = build_optimizer(
        "sgd", 0.1, momentum=0.0, weight_decay=0.0, clip_norm=1.0
    )
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert updates["decoder"]["w"][...].tolist() == pytest.approx([-0.06, -0.08])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_options_do_not_change_the_tree_of_the_state(name):
    params = nnx.State({"decoder": {"norm": {"scale": nnx.Param(jnp.zeros(2))}}})
    plain = build_optimizer(name, 0.1).init(params)
    other = build_optimizer(
        name,
        schedule("poly", 0.2, 9, warmup_steps=2),
        weight_decay=0.0,
        clip_norm=1.0,
        encoder_multiplier=0.0,
        freezes_norms=True,
    ).init(params)
    assert jax.tree.structure(plain) == jax.tree.structure(other)

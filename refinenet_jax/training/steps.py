"""The jitted training step."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from refinenet_jax.models import FeatureMap, RefineNet, in_training
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import Layout
from refinenet_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
# (outputs float32 [B,h,w,num_outputs], label uint8 [B,H,W]) → float32 [].
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def build_train_step(
    network: RefineNet,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    loss: Loss,
    layout: Layout,
    *,
    frozen_statistics: bool = False,
) -> jax.stages.Wrapped:
    """Compiles, on first use, one step of gradient descent.

    The step takes the state, which it consumes (its memory is reused), and a batch
    {"image": uint8 [B,H,W,channels], "label": uint8 [B,H,W]} divided as the layout
    says. It returns the next state and {"loss", "gradient_norm", "learning_rate"},
    float32 [] each. Losses and BatchNorm statistics are those of the global batch.

    Example:
        rate = schedule("cosine", 1e-3, num_steps=100)
        optimizer = build_optimizer("adamw", rate)
        loss = functools.partial(losses.cross_entropy, resolution="label")
        step = build_train_step(network, optimizer, rate, loss, global_layout())
        state = create_state(network, optimizer, seed=0)
        # step takes the memory of the state: the network keeps its own.
        state = jax.tree.map(jnp.copy, state)
        state, metrics = step(state, {"image": images, "label": labels})

    Args:
        network: only its structure is used; it may be abstract.
        optimizer: applied to the parameters.
        schedule: its learning rate, to be told.
        loss: of the network's outputs and the labels, see `Loss`.
        layout: of the devices.
        frozen_statistics: BatchNorm keeps and uses its own, as in the paper.
    """
    view = in_training(network, frozen_statistics=frozen_statistics)
    structure, _, _ = split_network(view)

    def loss_of(
        params: nnx.State, state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, nnx.State]:
        """Loss float32 [] of a batch, and the BatchNorm statistics it leaves."""
        network = structure.merge(params, state.batch_stats)
        images = FeatureMap(network.normalize(batch["image"]))
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        rngs = nnx.Rngs(dropout=key)
        logits = network.forward(images, with_void=True, rngs=rngs).values
        return loss(logits, batch["label"]), nnx.state(network, nnx.BatchStat)

    def train_step(
        state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
        """One step, see build_train_step."""
        (value, batch_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.params, state, batch
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics = {
            "loss": value,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        next_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return next_state, metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(layout.state, layout.batch),
        out_shardings=layout.state,
    )

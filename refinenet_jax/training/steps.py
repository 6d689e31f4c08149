"""The jitted training step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from refinenet_jax.models import FeatureMap, RefineNet, in_training
from refinenet_jax.models.chain import Remat
from refinenet_jax.models.leaves import Structure, split_network
from refinenet_jax.sharding import Layout
from refinenet_jax.training import losses
from refinenet_jax.training.losses import Loss
from refinenet_jax.training.state import Average, TrainState, create_state

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes; none of it changes the network, all may change within a run.

    Example:
        in_little_memory = StepOptions(accumulate=4, remat="blocks")

    Attributes:
        frozen_statistics: BatchNorm keeps and uses its own, as in the paper.
        accumulate: parts that a batch is taken in, one after the other, with the
            gradient of the whole where `weight` suits the loss; activations are those
            of one part. Each has BatchNorm statistics of its own where these are
            trained.
        weight: of a part's loss among those of the others: the number of values that
            the loss is the mean of, as float32 []. The default is that of a mean over
            the pixels of the label; for another loss it must be given. A loss that is
            no mean over pixels (ohem, dice, lovasz_softmax) is that of each part.
        ema_decay: of the average of the network, where the state has one; it starts
            lower, (1 + step) / (10 + step).
        remat: what is computed twice to save memory; see `models.chain.Recomputing`.
    """

    frozen_statistics: bool = False
    accumulate: int = 1
    weight: Loss = losses.valid_pixels
    ema_decay: float = 0.0
    remat: Remat = "none"


def build_train_step(
    network: RefineNet,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    loss: Loss,
    layout: Layout,
    options: StepOptions = StepOptions(),
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
        options: how, see `StepOptions`.
    """
    view = in_training(
        network,
        frozen_statistics=options.frozen_statistics,
        remat=options.remat,
        in_loop=options.accumulate > 1,
        kernel_sharding=layout.kernels,
    )
    structure, _, _ = split_network(view)

    shardings: Any = layout.state
    if layout.divides_state:
        abstract = jax.eval_shape(
            lambda n: create_state(n, optimizer, 0, averages=options.ema_decay > 0),
            network,
        )
        shardings = layout.state_shardings(abstract)

    gradient_of = _gradient_of(
        _loss_of(structure, loss, options.weight), layout, shardings
    )

    def of_whole(state: TrainState, batch: Batch) -> tuple[jax.Array, Any, nnx.State]:
        """Loss, gradient and BatchNorm statistics of a batch."""
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if options.accumulate > 1:
            parts = lax.with_sharding_constraint(
                _parts(batch, options.accumulate), layout.parts
            )
            return _accumulated(gradient_of, state, key, parts)
        (value, (batch_stats, _)), gradient = gradient_of(
            state.params, state.batch_stats, key, batch
        )
        return value, gradient, batch_stats

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step, see build_train_step."""
        value, gradient, batch_stats = of_whole(state, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics = {
            "loss": value,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        params = optax.apply_updates(state.params, updates)
        next_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            average=_averaged(state, params, batch_stats, options.ema_decay),
        )
        return next_state, metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, layout.batch),
        out_shardings=(shardings, layout.state),
    )


def _loss_of(
    structure: Structure[RefineNet], loss: Loss, weight_of: Loss
) -> Callable[..., Any]:
    """What is differentiated: the loss of a batch as a function of the parameters."""

    def loss_of(
        params: nnx.State, batch_stats: nnx.State, key: jax.Array, batch: Batch
    ) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
        """Loss of a batch, and the BatchNorm statistics it leaves with its weight."""
        network = structure.merge(params, batch_stats)
        images = FeatureMap(network.normalize(batch["image"]))
        rngs = nnx.Rngs(dropout=key)
        outputs = network.forward(images, with_void=True, rngs=rngs).values
        left = nnx.state(network, nnx.BatchStat)
        with jax.named_scope("loss"):
            weight = weight_of(outputs, batch["label"])
            return loss(outputs, batch["label"]), (left, weight)

    return loss_of


def _gradient_of(
    loss_of: Callable[..., Any], layout: Layout, shardings: Any
) -> Callable[..., Any]:
    """`jax.value_and_grad` of a loss, where the layout divides the state or does not."""

    def gradient_of(params: nnx.State, *arguments: Any) -> Any:
        """Loss with what comes with it, and the gradient, divided as the parameters."""
        if layout.divides_state:
            params = lax.with_sharding_constraint(params, layout.state)
        found = jax.value_and_grad(loss_of, has_aux=True)(params, *arguments)
        if layout.divides_state:
            return found[0], lax.with_sharding_constraint(found[1], shardings.params)
        return found

    return gradient_of


def _parts(batch: Batch, count: int) -> Batch:
    """[B,...] → [count,B/count,...]: a part is every count-th row.

    So each device has its share of each part already.
    """
    return {
        name: jnp.moveaxis(rows.reshape(-1, count, *rows.shape[1:]), 1, 0)
        for name, rows in batch.items()
    }


def _accumulated(
    gradient_of: Callable[..., Any], state: TrainState, key: jax.Array, parts: Batch
) -> tuple[jax.Array, Any, nnx.State]:
    """Loss, gradient and BatchNorm statistics of all parts, one after the other."""

    def add(carry: tuple[Any, ...], numbered: tuple[jax.Array, Batch]) -> Any:
        batch_stats, total, total_weight = carry
        number, part = numbered
        (value, (batch_stats, weight)), gradient = gradient_of(
            state.params, batch_stats, jax.random.fold_in(key, number), part
        )
        total = jax.tree.map(lambda x, new: x + weight * new, total, (value, gradient))
        return (batch_stats, total, total_weight + weight), None

    zero = jnp.zeros(())
    zeros = jax.tree.map(jnp.zeros_like, (zero, state.params))
    count = len(parts["label"])
    (batch_stats, total, weight), _ = lax.scan(
        add, (state.batch_stats, zeros, zero), (jnp.arange(count), parts)
    )
    # A batch without a single pixel that counts has no gradient.
    value, gradient = jax.tree.map(
        lambda x: x / jnp.where(weight > 0, weight, 1), total
    )
    return value, gradient, batch_stats


def _averaged(
    state: TrainState, params: nnx.State, batch_stats: nnx.State, decay: float
) -> Average | None:
    if state.average is None:
        return None
    # A young average forgets the weights that training started from.
    least = 1 - jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(
        lambda old, new: old + least * (new - old),
        state.average,
        Average(params, batch_stats),
    )

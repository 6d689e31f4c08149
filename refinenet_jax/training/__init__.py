"""Training: losses, optimisers, the jitted step and the state it changes.

A loop of one's own needs none of it: `nnx.Optimizer` trains a network of `models` with
a loss of `losses`. `build_train_step` is the step of this package, donated, sharded and
with frozen statistics where asked.
"""

from refinenet_jax.training import losses
from refinenet_jax.training.optimizer import build_optimizer, schedule
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.training.steps import StepOptions, build_train_step

__all__ = [
    "StepOptions",
    "TrainState",
    "build_optimizer",
    "build_train_step",
    "create_state",
    "losses",
    "schedule",
]

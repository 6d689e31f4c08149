"""The examples in docstrings run: those of every public name."""

import contextlib
import dataclasses
import functools
import inspect
import re
import runpy
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax import evaluation, models, training, weights
from refinenet_jax.sharding import global_layout
from refinenet_jax.training import losses
from refinenet_jax.weights.torch import write_safetensors
from tests.restored import restored_tables
from tests.tiny import TINY
from tests.weights.networks import checkpoint_of

LIBRARIES = (dataclasses, functools, jax, models, nnx, optax, losses)


def public(package):
    """The functions and classes of a package that a user is meant to know."""
    return {
        f"{package.__name__}.{name}": getattr(package, name)
        for name in package.__all__
        if callable(getattr(package, name))
    }


PUBLIC = {
    **public(models),
    **public(weights),
    **public(training),
    **{
        f"losses.{name}": getattr(losses, name)
        for name in (
            "cross_entropy",
            "dice",
            "focal",
            "lovasz_softmax",
            "nearest",
            "ohem",
            "valid_pixels",
            "weighted_sum",
        )
    },
    **public(evaluation),
}


def example(thing):
    """The code below "Example:" in a docstring."""
    found = re.search(
        r"^Example:\n((?: {4}.*\n|\n)+)", f"{inspect.getdoc(thing)}\n", re.MULTILINE
    )
    assert found, "no example"
    return textwrap.dedent(found[1])


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What an example may speak of: libraries, all public names, and a few things."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("examples")
    tensors = {
        key: array
        for key, array in checkpoint_of("light_resnet18").items()
        if re.match(r"conv1|bn1|layer\d", key)
    }
    write_safetensors(folder / "resnet18.safetensors", tensors, {})
    with (
        contextlib.chdir(folder),
        restored_tables(),
        # Its programs compile in a third of the time.
        jax.default_prng_impl("rbg"),
    ):
        models.add_backbone("tiny", TINY)
        description = models.Architecture("light_tiny", 3, pooling_stages=1)
        names = {
            # Steps of it compile in a blink.
            "small_network": models.RefineNet(description, rngs=nnx.Rngs(0)),
            **{module.__name__.rpartition(".")[2]: module for module in LIBRARIES},
            "jnp": jnp,
            "np": np,
            "global_layout": global_layout,
            "images": jnp.asarray(rng.integers(0, 256, (4, 64, 48, 3)), jnp.uint8),
            "labels": jnp.asarray(rng.integers(0, 3, (4, 64, 48)), jnp.uint8),
            **{name.rpartition(".")[2]: thing for name, thing in PUBLIC.items()},
            **{name: getattr(models, name) for name in models.__all__},
        }
        # The network that all others speak of.
        names["network"] = run("refinenet_jax.models.RefineNet", names)["network"]
        yield names


def run(name, names):
    """The names that an example leaves."""
    path = Path("example.py")
    path.write_text(example(PUBLIC[name]))
    return runpy.run_path(str(path), names)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of(name, names):
    own = {"network": names["small_network"]} if ".training." in name else {}
    assert run(name, {**names, **own})

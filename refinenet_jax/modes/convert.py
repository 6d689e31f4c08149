"""Mode convert: a PyTorch checkpoint becomes a checkpoint of ours."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.assembly.data import find_dataset
from refinenet_jax.assembly.network import Pictures, describe
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.errors import UserError
from refinenet_jax.models import abstract_network
from refinenet_jax.models.leaves import replace_leaves, split_network, weights_of
from refinenet_jax.weights.load import architecture_in, read_weights, shapes_of


def run(config: ConfigDict, workdir: epath.Path, weights: str) -> None:
    """Writes checkpoints/ for the config's network from the file `weights`.

    Of several processes the first works.

    Raises:
        UserError: a file that does not fit the network or holds a backbone only,
            or a workdir that is in use.
    """
    if jax.process_index() != 0:
        return
    metadata = describe(config, find_dataset(config), _pictures(config, weights))
    network = abstract_network(metadata.architecture)
    _, params, batch_stats = split_network(network)
    taken = read_weights(
        weights,
        metadata.architecture,
        shapes_of(weights_of(network)),
        channels=config.init_channels,
    )
    if not taken.whole:
        raise UserError(
            f"{weights} holds a backbone only, with which nothing can be segmented: "
            f"train from it with --config.init_from={weights}"
        )
    arrays = {leaf: jnp.asarray(array) for leaf, array in taken.arrays.items()}
    files.make_folder(workdir, "--workdir")
    with contextlib.closing(Checkpoints(workdir, keep_latest=1)) as checkpoints:
        checkpoints.save_network(
            replace_leaves(params, arrays),
            replace_leaves(batch_stats, arrays),
            dataclasses.replace(metadata, weights=taken.origin),
        )
    files.write_json(workdir / "config.json", config.to_dict())
    log.say(str(taken))
    log.say(f"written to {workdir}; --mode=eval and --mode=predict take it from there")


def _pictures(config: ConfigDict, weights: str) -> Pictures:
    """What the file says that its network sees, else what the config asks for."""
    found = architecture_in(weights)
    if found is not None and config.model.channels in (0, found.channels):
        seen = Pictures.seen_by(found)
        # The mean and std of RGB are the config's or the backbone's, as ever.
        return Pictures() if seen.kind == RGB else seen
    return Pictures.asked_for(config)

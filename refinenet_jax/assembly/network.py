"""The network that a config asks for, and the weights it starts from."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax.sharding import Sharding
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.assembly.data import mean_and_std
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import FOLDER, open_checkpoints
from refinenet_jax.data.datasets import Dataset
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError
from refinenet_jax.inference.inputs import kind_of
from refinenet_jax.models import Architecture
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.models.leaves import CLASSIFIER, named_leaves, replace_leaves
from refinenet_jax.weights import torch
from refinenet_jax.weights.load import read_weights, shapes_of


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What a network is to know of pictures.

    Attributes:
        kind: of all of them.
        mean: of each channel, where they are not RGB; (): the backbone's own.
        std: as `mean`.
    """

    kind: PictureKind = RGB
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(cls, source: Source) -> "Pictures":
        """Those of the training split; all processes must call this."""
        if source.kind == RGB:
            return cls()
        mean, std = mean_and_std(source)
        return cls(source.kind, tuple(mean), tuple(std))

    @classmethod
    def seen_by(cls, architecture: Architecture) -> "Pictures":
        """Those that a network was made for."""
        return cls(kind_of(architecture), architecture.mean, architecture.std)

    @classmethod
    def asked_for(cls, config: ConfigDict) -> "Pictures":
        """What the config says, where there are none at hand."""
        channels = config.model.channels or RGB.channels
        kind = PictureKind(channels, config.model.picture_dtype or RGB.dtype)
        if kind == RGB:
            return cls()
        return cls(kind, (0.0,) * kind.channels, (1.0,) * kind.channels)


AS_RGB = Pictures()


def architecture_of(
    config: ConfigDict, num_classes: int, pictures: Pictures = AS_RGB
) -> Architecture:
    """The group config.model, with the number of classes where that is 0.

    Raises:
        UserError: the variant is unknown, the pictures are of another dtype, or mean or
            std is set for what is not RGB.
    """
    names = [field.name for field in dataclasses.fields(Architecture)]
    values = {name: config.model[name] for name in names}
    values["num_classes"] = values["num_classes"] or num_classes
    if values["picture_dtype"] not in ("", pictures.kind.dtype):
        raise UserError(
            f"config.model.picture_dtype={values['picture_dtype']!r}, but the pictures "
            f"have {pictures.kind}: leave it empty, or take other data"
        )
    values["picture_dtype"] = pictures.kind.dtype
    for name in ("mean", "std"):
        if values[name] and pictures.kind != RGB:
            raise UserError(
                f"config.model.{name}={tuple(values[name])} is of RGB, but the pictures "
                f"have {pictures.kind}: set (), for what they have themselves"
            )
        values[name] = values[name] or getattr(pictures, name)
    return Architecture(**values)


def describe(
    config: ConfigDict, dataset: Dataset, pictures: Pictures = AS_RGB
) -> Metadata:
    """All that is needed to use the network without its config.

    Raises:
        UserError: see `architecture_of`.
    """
    return Metadata(
        architecture_of(config, dataset.num_classes, pictures),
        dataset.class_names,
        dataset.palette,
        dataset=dataset.name,
        dtype=config.model.dtype,
        size_multiple=config.eval.size_multiple,
        optimizer=config.optimizer.name,
        averaged=config.train.ema > 0,
        config=config.to_dict(),
    )


def refuse_other_channels(
    config: ConfigDict, origin: epath.Path, found: Architecture
) -> None:
    """Raises UserError where a network sees others than config.model.channels says."""
    if config.model.channels not in (0, found.channels):
        raise UserError(
            f"{origin} holds a network of {found.channels} channels, but "
            f"config.model.channels={config.model.channels}: set 0, or choose another"
        )


def refuse_missing_weights(config: ConfigDict) -> None:
    """Raises UserError where nothing is at config.init_from.

    To be asked before any work; whether the weights fit shows later.
    """
    if not config.init_from:
        return
    if torch.is_torch_file(config.init_from):
        torch.locate(config.init_from)
        return
    folder = files.path(config.init_from)
    if files.is_folder(folder) and not files.is_folder(folder / FOLDER):
        torch.refuse_folder(folder)
    open_checkpoints(folder).close()


def weights_to_start_from(
    config: ConfigDict,
    params: nnx.State,
    batch_stats: nnx.State,
    metadata: Metadata,
    sharding: Sharding,
) -> tuple[nnx.State, nnx.State]:
    """Parameters and BatchNorm statistics of config.init_from, what it has of them.

    Args:
        config: the whole configuration.
        params: random ones, which stay where the weights have nothing for them.
        batch_stats: likewise.
        metadata: of the network that the run asks for.
        sharding: how to lay the weights out.

    Raises:
        UserError: the weights cannot be read or are of another network.
    """
    if torch.is_torch_file(config.init_from):
        return _of_torch_file(config, params, batch_stats, metadata, sharding)
    return _of_run(config, params, metadata, sharding)


def _of_torch_file(
    config: ConfigDict,
    params: nnx.State,
    batch_stats: nnx.State,
    metadata: Metadata,
    sharding: Sharding,
) -> tuple[nnx.State, nnx.State]:
    taken = read_weights(
        config.init_from,
        metadata.architecture,
        shapes_of(nnx.merge_state(params, batch_stats)),
        with_classifier=config.init_classifier,
        channels=config.init_channels,
    )
    log.say(str(taken))
    arrays = {
        leaf: jax.device_put(jnp.asarray(array), sharding)
        for leaf, array in taken.arrays.items()
    }
    return replace_leaves(params, arrays), replace_leaves(batch_stats, arrays)


def _of_run(
    config: ConfigDict, params: nnx.State, metadata: Metadata, sharding: Sharding
) -> tuple[nnx.State, nnx.State]:
    workdir = files.path(config.init_from)

    def check(found: Metadata) -> None:
        check_same_network(
            workdir,
            found.architecture,
            metadata.architecture,
            with_classifier=config.init_classifier,
        )

    with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
        found, theirs, batch_stats = checkpoints.load_network("best", sharding, check)
    log.say(f"starting from the network of {workdir}, step {found.step}")
    if config.init_classifier:
        return theirs, batch_stats
    log.say("its classifier is not taken")
    taken = {
        path: leaf[...]
        for path, leaf in named_leaves(theirs).items()
        if path not in CLASSIFIER
    }
    return replace_leaves(params, taken), batch_stats

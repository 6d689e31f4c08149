"""Brings weights of PyTorch checkpoints into our networks and back, none forgotten."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from refinenet_jax.errors import UserError, listed
from refinenet_jax.models import VARIANTS
from refinenet_jax.models.leaves import BACKBONES, CLASSIFIER, DECODER
from refinenet_jax.weights import tables
from refinenet_jax.weights.channels import ChannelRule, adapted, of_rgb
from refinenet_jax.weights.channels import told as told_of
from refinenet_jax.weights.refusals import (
    refuse_faults,
    refuse_other_classes,
    refuse_other_depth,
)
from refinenet_jax.weights.rules import STEP_COUNTER, Arrays, Naming, Rule, Shapes

# Counts the weights that torch's AveragedModel has averaged; stands beside its "module.".
_AVERAGED = "n_averaged"
_OF_BACKBONES, _OF_DECODER = f"{BACKBONES}.", f"{DECODER}."


@dataclasses.dataclass(frozen=True)
class Imported:
    """What a checkpoint gives to a network.

    Attributes:
        arrays: by leaf of our network; float32. All leaves, or those of the backbones,
            or all but the classifier's.
        source: whose names the checkpoint has.
        whole: it holds a decoder too.
        left_out: keys of the checkpoint that no part of the network was made for.
        prefix: what all keys began with, such as "module."; "" where they are as known.
        adapted: how the first convolution became one of other channels; "" where it is
            as it was.
    """

    arrays: dict[str, np.ndarray]
    source: str
    whole: bool
    left_out: tuple[str, ...]
    prefix: str
    adapted: str = ""


def import_weights(
    tensors: Arrays,
    shapes: Shapes,
    variant: str,
    *,
    with_classifier: bool,
    origin: str,
    channels: ChannelRule = "repeat",
) -> Imported:
    """Finds the place of every tensor and a tensor for every leaf.

    A checkpoint without any part of a decoder is an ImageNet one: every backbone of the
    network starts from it.

    Args:
        tensors: of a checkpoint; [out,in,h,w] kernels.
        shapes: all leaves of the network.
        variant: of the network.
        with_classifier: False leaves the checkpoint's classifier out.
        origin: how to call the checkpoint in messages.
        channels: see `channels.adapted`.

    Raises:
        UserError: lists every tensor without a place, every leaf without a tensor and
            every shape that differs.
    """
    tensors, prefix = _without_prefix(tensors)
    naming = _backbone_naming(tensors, variant, origin)
    decoder = _decoder_naming(shapes)
    whole = any(rule.our_leaf(key) for rule in _all_decoder_rules() for key in tensors)
    rules = _rules(naming, decoder if whole else None, shapes)
    refuse_other_depth(tensors, shapes, variant, origin)
    if whole and with_classifier:
        refuse_other_classes(tensors, shapes, decoder, origin)
    wanted = {
        leaf: shape
        for leaf, shape in shapes.items()
        if leaf.startswith(_OF_BACKBONES)
        or (whole and (with_classifier or leaf not in CLASSIFIER))
    }
    arrays: dict[str, np.ndarray] = {}
    left_out, extra, misshapen, told = [], [], [], ""
    for key, tensor in tensors.items():
        places = [leaf for rule in rules if (leaf := rule.our_leaf(key))]
        classifies_images = not whole and naming.leaves_out(key)
        classifies_pixels = any(leaf in CLASSIFIER for leaf in places)
        if classifies_images or (classifies_pixels and not with_classifier):
            left_out.append(key)
        elif any(rule.step_counter(key) for rule in rules):
            continue
        elif not places or any(leaf not in wanted for leaf in places):
            extra.append(key)
        for leaf in places:
            if leaf in wanted:
                arrays[leaf] = _to_ours(tensor, leaf, naming)
                if of_rgb(leaf, arrays[leaf].shape, wanted[leaf]):
                    number = wanted[leaf][2]
                    arrays[leaf] = adapted(arrays[leaf], number, channels)
                    told = told_of(number, channels)
                if arrays[leaf].shape != wanted[leaf]:
                    theirs, ours = list(tensor.shape), list(wanted[leaf])
                    misshapen.append(f"{key} {theirs} for {leaf} {ours}")
    if naming.identity_expansion:
        arrays |= _identity_expansion(wanted)
    faults = {
        "not of this network": extra,
        "missing": [_expected_key(leaf, rules) for leaf in wanted.keys() - arrays],
        "of another shape": misshapen,
    }
    refuse_faults(faults, f"{origin} ({naming.title}) does not fit {variant}")
    source = decoder.title if whole else naming.title
    return Imported(arrays, source, whole, tuple(left_out), prefix, told)


def export_weights(arrays: Arrays, variant: str) -> dict[str, np.ndarray]:
    """A network as the PyTorch ports name and lay it out.

    arrays: by leaf, all leaves of a network of that variant → by key; with the step
    counters that torch's BatchNorm has, at 0.

    Example:
        leaves = models.leaves.named_leaves(models.leaves.weights_of(network))
        arrays = {path: np.asarray(leaf[...]) for path, leaf in leaves.items()}
        tensors = export_weights(arrays, "light_resnet18")
        assert tensors["conv1.weight"].shape == (64, 3, 7, 7)  # [out,in,h,w]

    Raises:
        UserError: the backbone is one's own and has no such names.
    """
    family = VARIANTS[variant][0].family
    if not family:
        raise UserError(f"the backbone of {variant} has no names in PyTorch")
    backbone, *_ = tables.BACKBONES[family]
    rules = _rules(backbone, _decoder_naming(arrays), arrays)
    tensors: dict[str, np.ndarray] = {}
    for leaf, array in arrays.items():
        key, rule = next((k, r) for r in rules if (k := r.torch_key(leaf)))
        tensors[key] = np.ascontiguousarray(_to_theirs(array, rule.kind == "linear"))
        if key.endswith(".running_var"):
            counter = key.removesuffix("running_var") + STEP_COUNTER
            tensors[counter] = np.zeros((), np.int64)
    return tensors


def _to_ours(tensor: np.ndarray, leaf: str, naming: Naming) -> np.ndarray:
    """As our leaf has it: a kernel [out,in,h,w] or [out,in] becomes [h,w,in,out]."""
    if leaf.endswith(".kernel") and tensor.ndim == 2:
        return tensor.T[None, None]
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    if leaf.endswith(".var") and naming.more_epsilon:
        return tensor + np.asarray(naming.more_epsilon, tensor.dtype)
    # The scale of a layer may be [C,1,1].
    return tensor[:, 0, 0] if tensor.shape[1:] == (1, 1) else tensor


def _to_theirs(array: np.ndarray, linear: bool) -> np.ndarray:
    """The inverse of `_to_ours` for a naming that we write."""
    if array.ndim != 4:
        return array
    kernel = array.transpose(3, 2, 0, 1)
    return kernel[..., 0, 0] if linear else kernel


def _without_prefix(tensors: Arrays) -> tuple[Arrays, str]:
    """The tensors by their known names, and what wrappers had put before all of these."""
    bare = {key: x for key, x in tensors.items() if key != _AVERAGED}
    prefix = ""
    while bare and not any(naming.knows(bare) for _, naming in _namings()):
        first = next(iter(bare)).partition(".")[0] + "."
        if not all(key.startswith(first) for key in bare):
            return tensors, ""
        bare = {key.removeprefix(first): x for key, x in bare.items()}
        prefix += first
    return (bare, prefix) if prefix else (tensors, "")


def _namings() -> list[tuple[str, Naming]]:
    """All there are, each with the family of backbones that it belongs to."""
    return [(family, n) for family, ns in tables.BACKBONES.items() for n in ns]


def _backbone_naming(tensors: Arrays, variant: str, origin: str) -> Naming:
    found = [(family, n) for family, n in _namings() if n.knows(tensors)]
    if not found:
        raise UserError(
            f"{origin}: its keys ({listed(list(tensors), 3)}) are of no known network; "
            f"{_part_with_backbone(tensors)}"
        )
    own = VARIANTS[variant][0].family
    family, naming = next((f for f in found if f[0] == own), found[0])
    if family != own:
        families = [family for family, _ in found]
        fitting = [
            v for v, (backbone, _) in VARIANTS.items() if backbone.family in families
        ]
        raise UserError(
            f"{origin} holds the {naming.title}, config.model.variant={variant!r} has "
            f"another backbone: choose one of {', '.join(fitting)}"
        )
    return naming


def _part_with_backbone(tensors: Arrays) -> str:
    """What helps: the part of the keys that would be known alone, else what is known."""
    for _, naming in _namings():
        for key in tensors:
            if key.endswith(f".{naming.signature}"):
                part = key.removesuffix(naming.signature)
                return f"save those that begin with {part} alone: {naming.title}"
    known = dict.fromkeys(naming.title for _, naming in _namings())
    return f"known: {', '.join(known)}"


def _decoder_naming(shapes: Shapes | Arrays) -> Naming:
    """The first that has a key for every leaf of the decoder."""
    leaves = [
        leaf.removeprefix(_OF_DECODER)
        for leaf in shapes
        if leaf.startswith(_OF_DECODER)
    ]
    return next(
        naming
        for naming in tables.DECODERS
        if all(any(rule.torch_key(leaf) for rule in naming.rules) for leaf in leaves)
    )


def _all_decoder_rules() -> list[Rule]:
    return [rule for naming in tables.DECODERS for rule in naming.rules]


def _rules(
    backbone: Naming, decoder: Naming | None, leaves: Shapes | Arrays
) -> list[Rule]:
    """The rules of a whole network, or of its backbones."""
    scales = {leaf.split(".")[1] for leaf in leaves if leaf.startswith(_OF_BACKBONES)}
    rules = []
    for index in range(len(scales)):
        # No port has two backbones: the name of the second is ours.
        prefix = "" if index == 0 or decoder is None else f"scale{index + 1}."
        rules += [
            rule.below(prefix, f"{_OF_BACKBONES}{index}.") for rule in backbone.rules
        ]
    if decoder is not None:
        rules += [rule.below("", _OF_DECODER) for rule in decoder.rules]
    return rules


def _expected_key(leaf: str, rules: Sequence[Rule]) -> str:
    return next((key for rule in rules if (key := rule.torch_key(leaf))), leaf)


def _identity_expansion(wanted: Shapes) -> dict[str, np.ndarray]:
    """Values with which the first expansion of MobileNet-v2 passes its input on.

    A unit matrix and a BatchNorm that multiplies by exactly 1; the ReLU6 that follows
    finds what a ReLU6 has left.
    """
    arrays = {}
    for leaf, shape in wanted.items():
        if ".stages.0.0.layers.0." not in leaf:
            continue
        name = leaf.rpartition(".")[2]
        if name == "kernel":
            arrays[leaf] = np.eye(shape[-1], dtype=np.float32)[None, None]
        else:
            # The variance and epsilon add up to 1.
            value = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1 - 1e-5}[name]
            arrays[leaf] = np.full(shape, value, np.float32)
    return arrays

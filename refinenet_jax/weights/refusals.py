"""What a checkpoint is refused with where it does not fit: hints, then lists of keys."""

import re
from collections.abc import Mapping, Sequence

from refinenet_jax.errors import UserError, listed
from refinenet_jax.models.leaves import CLASSIFIER, DECODER
from refinenet_jax.models.resnet import DEPTHS
from refinenet_jax.weights import tables
from refinenet_jax.weights.rules import Arrays, Naming, Shapes

_Depth = tuple[tuple[int, ...], bool]


def _depth(names: Sequence[str], block: str, third_conv: str) -> _Depth:
    """Blocks in each stage by a pattern with two numbers; whether of three layers."""
    found = [match for name in names if (match := re.match(block, name))]
    stages = sorted({int(match[1]) for match in found})
    counts = tuple(
        1 + max(int(match[2]) for match in found if int(match[1]) == stage)
        for stage in stages
    )
    return counts, any(re.search(third_conv, name) for name in names)


def refuse_other_depth(
    tensors: Arrays, shapes: Shapes, variant: str, origin: str
) -> None:
    """A hint that helps more than the list of hundreds of keys."""
    if tables.RESNET.signature not in tensors:
        return
    theirs = _depth(list(tensors), r"layer(\d)\.(\d+)\.conv", r"^layer\d\.\d+\.conv3")
    ours = _depth(
        list(shapes),
        r"backbones\.0\.stages\.(\d)\.(\d+)\.",
        r"^backbones\.0\.stages\.\d\.\d+\.layers\.2",
    )
    depth = next((depth for depth, form in DEPTHS.items() if form == theirs), None)
    # A checkpoint that lacks some block of another depth is merely incomplete.
    if theirs == ours or depth is None:
        return
    name = re.sub(r"^light_|_caffe$|_\d+x\d+d$", "", variant)
    differing = [
        f"layer{stage}.{count - 1}, {name} has {own} blocks in layer{stage}"
        for stage, (count, own) in enumerate(zip(theirs[0], ours[0], strict=True), 1)
        if count != own
    ]
    fact = differing[-1] if differing else f"blocks of another form than {name}'s"
    guess = re.sub(r"\d+", str(depth), name, count=1)
    raise UserError(f"{origin} has {fact}: is it {guess}?")


def refuse_other_classes(
    tensors: Arrays, shapes: Shapes, decoder: Naming, origin: str
) -> None:
    """Raises UserError where the checkpoint's classifier is for other classes."""
    keys = [
        rule.below("", f"{DECODER}.").torch_key(CLASSIFIER[0]) for rule in decoder.rules
    ]
    found = next((tensors[key] for key in keys if key and key in tensors), None)
    outputs = shapes[CLASSIFIER[0]][-1]
    if found is not None and found.shape[0] != outputs:
        raise UserError(
            f"{origin} has a classifier of {found.shape[0]} outputs, this network has "
            f"{outputs}: change config.model.num_classes, or start the classifier anew "
            "with config.init_classifier=False"
        )


def refuse_faults(faults: Mapping[str, Sequence[str]], title: str) -> None:
    """Raises UserError where there are any; kind of fault: names that have it."""
    parts = [
        f"{len(names)} {kind}: {listed(sorted(names), 8)}"
        for kind, names in faults.items()
        if names
    ]
    if parts:
        raise UserError(f"{title}; {'; '.join(parts)}")

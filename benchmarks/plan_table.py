"""Prints what a training step of each config takes on chips that are not attached.

    python benchmarks/plan_table.py h100:1 2>/dev/null
    python benchmarks/plan_table.py v5e:2x4 voc:light_resnet50 2>/dev/null

The first argument is as --topology of mode plan, the others are configs; without any, those
of the paper and the light-weight networks on VOC. In bfloat16, with the config's own crops
and 16 of them on each device. A line takes a minute for a GPU and several for a TPU; those
that were asked for before are kept.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from refinenet_jax.planning import apart

if __name__ == "__main__":
    os.environ.update(apart.ENVIRONMENT)  # before jax is imported

from refinenet_jax import config as configs
from refinenet_jax.assembly.planning import network_of, step_program
from refinenet_jax.planning import targets
from refinenet_jax.planning.program import plan
from refinenet_jax.planning.search import estimate

_PER_DEVICE = 16
_PAPER = (
    "voc",
    "cityscapes",
    "ade20k",
    "pascal_context",
    "person_part",
    "nyud",
    "sunrgbd",
    "coco_stuff",
)
_LIGHT = (
    "light_resnet18",
    "light_resnet50",
    "light_resnet101",
    "light_resnet152",
    "light_mobilenet_v2",
    "light_efficientnet_lite0",
)


def main(topology: str, names: Sequence[str]) -> None:
    """Prints the table, line by line; names: configs, with variants."""
    target = targets.open_topology(targets.parse(topology))
    print(
        "| config | network | crop | chips | 16 a chip | GiB of each | about the most "
        "that fit | step, at least | images/s, at most | binds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names or (*_PAPER, *(f"voc:{variant}" for variant in _LIGHT)):
        print(row(name, target), flush=True)


def row(name: str, target: targets.Target) -> str:
    """A line of the table."""
    name, _, variant = name.partition(":")
    config = configs.load(configs.locate(name), variant)
    config.model.dtype = "bfloat16"
    config.train.batch_size = _PER_DEVICE * len(target.devices)
    found = plan(step_program(config, network_of(config), target), target, silently)
    sizes, limits = found["bytes_per_device"], found.get("bound")
    fits = "fits" if found["fits"] else "does not fit"
    if found.get("refused"):
        fits += ", without Triton"
    cells = [
        name,
        config.model.variant,
        str(config.data.crop_size),
        target.name,
        fits,
        f"{sizes['total'] / 2**30:.1f} of {sizes['available'] / 2**30:.1f}",
        str(estimate(found, _PER_DEVICE)),
        f"{1000 * limits['seconds']:.0f} ms" if limits else "",
        f"{limits['images_per_second']:,.0f}" if limits else "",
        limits["binds"] if limits else "",
    ]
    return f"| {' | '.join(cells)} |"


@contextlib.contextmanager
def silently(what: str, seconds: float) -> Iterator[None]:
    """Waits without a word."""
    del what, seconds
    yield


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

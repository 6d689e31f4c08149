"""What a plan is for: `--topology`, read before jax is imported, and its devices."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from refinenet_jax.errors import UserError, first_line, unknown
from refinenet_jax.planning.chips import CHIPS, Chip, chip_of
from refinenet_jax.planning.gpus import target_config
from refinenet_jax.provenance import version_of

if TYPE_CHECKING:
    import jax

_EXAMPLES = "such as v5e:2x4, v5p:2x2x1, h100:1 or a100:8"
_INSTALL = "pip install 'refinenet_jax[plan]'"
_GPU_SHARE = 0.75  # of its memory, which jax takes where nothing else is said
_MOST_GPUS = 8  # of one machine
# Either release of CUDA compiles; jax's own wheel for it must be of jax's version.
_CUDA = (
    ("jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12"),
    ("jax-cuda13-plugin", "nvidia-cuda-nvcc"),
)
CUDA_WHEELS = [wheel for wheels in _CUDA for wheel in wheels]


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips that are not attached.

    Attributes:
        name: as it was given, such as "v5e:2x4".
        chip: of which they are.
        shape: how they lie; one number for GPUs, which are all connected.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices that programs are compiled for.

    Attributes:
        name: "v5e:2x4", or what is attached: "4 × cpu".
        platform: as jax has it.
        topology: as it was given; None where the devices are attached.
        devices: all of them.
        chip: what one device can do; None where the table has nothing.
        memory: bytes that a program can have on each.
    """

    name: str
    platform: str
    topology: str | None
    devices: Sequence["jax.Device"]
    chip: Chip | None
    memory: int

    @property
    def devices_of_one_process(self) -> list["jax.Device"]:
        """Those that one process evaluates on."""
        first = self.devices[0].process_index
        return [device for device in self.devices if device.process_index == first]


def parse(name: str) -> Topology:
    """Reads `--topology`.

    Raises:
        UserError: it is no chip with a layout.
    """
    chip_name, _, layout = name.lower().partition(":")
    if chip_name not in CHIPS:
        raise unknown(f"--topology={name}", chip_name, CHIPS)
    chip = CHIPS[chip_name]
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2}", layout):
        raise UserError(
            f"--topology={name} must be a chip, a colon and how many there are along "
            f"each axis, {_EXAMPLES}"
        )
    shape = tuple(map(int, layout.split("x")))
    if chip.platform == "gpu" and (len(shape) > 1 or shape[0] > _MOST_GPUS):
        raise UserError(
            f"--topology={name}: GPUs are those of one machine, {chip_name}:1 to "
            f"{chip_name}:{_MOST_GPUS}"
        )
    return Topology(f"{chip_name}:{layout}", chip, shape)


def refuse_missing_compiler(topology: Topology) -> None:
    """Raises UserError where the compiler of these chips is not installed."""
    if topology.chip.platform == "tpu":
        if not version_of("libtpu"):
            raise UserError(
                f"--topology={topology.name} needs the compiler for TPUs, libtpu: "
                f"{_INSTALL}"
            )
        return
    found = [wheels for wheels in _CUDA if all(map(version_of, wheels))]
    if not found:
        raise UserError(
            f"--topology={topology.name} needs the compiler for CUDA, the wheels "
            f"{' and '.join(_CUDA[0])}: {_INSTALL}"
        )
    plugin = found[0][0]
    if version_of(plugin) != version_of("jax"):
        raise UserError(
            f"{plugin} {version_of(plugin)} is not of jax's version, {version_of('jax')}: "
            f"{_INSTALL}"
        )


def open_topology(topology: Topology) -> Target:
    """Devices that are not there, to compile for.

    Raises:
        UserError: no such chips are built in that shape.
    """
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    chip = topology.chip
    try:
        if chip.platform == "tpu":
            layout = "x".join(map(str, topology.shape))
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=f"{chip.name}:{layout}"
            )
        else:
            found = topologies.get_topology_desc(
                platform="cuda",
                topology_name="",
                topology=f"1x1x{topology.shape[0]}",
                target_config=target_config(chip.name),
            )
    except JaxRuntimeError as error:
        raise UserError(
            f"--topology={topology.name} is refused ({first_line(error)}): name a shape "
            f"that is built, {_EXAMPLES}"
        ) from error
    chip = chip.divided()
    share = _gpu_share() if chip.platform == "gpu" else 1.0
    return Target(
        name=topology.name,
        platform=chip.platform,
        topology=topology.name,
        devices=found.devices,
        chip=chip,
        memory=round(share * chip.memory),
    )


def _gpu_share() -> float:
    """Of a GPU's memory, that jax takes."""
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    given = os.environ.get(name) or str(_GPU_SHARE)
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(f"{name}={given!r} must be a number above 0 and at most 1")
    return share


def attached(memory: int) -> Target:
    """The devices of this run; memory: bytes of one of them."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    chip = chip_of(kind)
    return Target(
        name=f"{len(devices)} × {kind}",
        platform=devices[0].platform,
        topology=None,
        devices=devices,
        chip=None if chip is None else chip.divided(),
        memory=memory,
    )

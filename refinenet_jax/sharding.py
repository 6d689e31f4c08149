"""Where arrays live on the devices."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refinenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Batches divided among the devices, all else on each of them.

    Attributes:
        mesh: the devices in one axis, "data".
        batch: the first axis divided among them.
        state: a full copy on each.
    """

    mesh: Mesh
    batch: NamedSharding
    state: NamedSharding

    @classmethod
    def over(cls, devices: Sequence[jax.Device]) -> "Layout":
        """The layout over these devices, in this order."""
        # Not jax.make_mesh, whose axes are explicit: there convolutions fail.
        mesh = Mesh(np.asarray(devices), ("data",))
        return cls(
            mesh,
            batch=NamedSharding(mesh, PartitionSpec("data")),
            state=NamedSharding(mesh, PartitionSpec()),
        )

    @property
    def num_devices(self) -> int:
        """How many devices there are, of all processes."""
        return self.mesh.size


def global_layout() -> Layout:
    """Over all devices of all processes."""
    return Layout.over(jax.devices())


def local_layout() -> Layout:
    """Over the devices of this process."""
    return Layout.over(jax.local_devices())


def one_device_layout() -> Layout:
    """On the first device of this process."""
    return Layout.over(jax.local_devices()[:1])


def check_batch_size(field: str, batch_size: int, layout: Layout) -> None:
    """Raises UserError where the devices cannot share the batch equally."""
    if batch_size % layout.num_devices:
        raise UserError(
            f"config.{field}={batch_size} must be a multiple of the "
            f"{layout.num_devices} devices"
        )


def to_devices(batch: Mapping[str, np.ndarray], layout: Layout) -> dict[str, jax.Array]:
    """This process's share of a batch → arrays of the global batch, divided."""
    return {
        name: jax.make_array_from_process_local_data(layout.batch, array)
        for name, array in batch.items()
    }

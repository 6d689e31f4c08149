"""Where arrays live on the devices."""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refinenet_jax.errors import UserError

_Tree = TypeVar("_Tree")

# Values below which an array is not worth dividing: bringing it together takes as long
# as for one that is many times larger.
_FEWEST = 4096


@dataclasses.dataclass(frozen=True)
class Layout:
    """Batches divided among the devices, all else on each of them.

    Attributes:
        mesh: the devices in one axis, "data", or with "rows", which pictures are
            divided over.
        batch: of pictures and what has a value for each pixel: the first axis divided,
            and the second where there are "rows".
        examples: of what has values for each picture: the first axis divided.
        state: a full copy on each.
        divides_state: training keeps parameters and what the optimiser knows of them in
            shares, see `state_shardings`.
    """

    mesh: Mesh
    batch: NamedSharding
    examples: NamedSharding
    state: NamedSharding
    divides_state: bool = False

    @classmethod
    def over(
        cls,
        devices: Sequence[jax.Device],
        *,
        row_shards: int = 1,
        divides_state: bool = False,
    ) -> "Layout":
        """The layout over these devices, in this order.

        row_shards: devices, neighbours in the order, that share each picture.
        """
        # Not jax.make_mesh, whose axes are explicit: there convolutions fail.
        mesh = Mesh(np.asarray(devices), ("data",))
        batch = PartitionSpec("data")
        if row_shards > 1:
            grid = np.asarray(devices).reshape(-1, row_shards)
            mesh = Mesh(grid, ("data", "rows"))
            batch = PartitionSpec("data", "rows")
        return cls(
            mesh,
            batch=NamedSharding(mesh, batch),
            examples=NamedSharding(mesh, PartitionSpec("data")),
            state=NamedSharding(mesh, PartitionSpec()),
            divides_state=divides_state,
        )

    @property
    def parts(self) -> NamedSharding:
        """Of batches that stand in a new first axis."""
        return NamedSharding(self.mesh, PartitionSpec(None, *self.batch.spec))

    @property
    def num_devices(self) -> int:
        """How many devices there are, of all processes."""
        return self.mesh.size

    @property
    def platform(self) -> str:
        """What kind of devices they are: cpu, gpu or tpu."""
        return str(self.mesh.devices.flat[0].platform)

    @property
    def batch_shards(self) -> int:
        """Parts that the pictures of a batch are divided into."""
        return self.mesh.shape["data"]

    @property
    def row_shards(self) -> int:
        """Parts that the rows of a picture are divided into."""
        return self.mesh.shape.get("rows", 1)

    @property
    def kernels(self) -> NamedSharding | None:
        """What kernels are to be held to where rows are divided; else None."""
        return self.state if self.row_shards > 1 else None

    def state_shardings(self, tree: Any) -> Any:
        """The shardings of the arrays of a training state, or of parts of it.

        Where the layout divides the state, each large array is divided over "data"
        along its longest axis that can be; all others are whole on each device.
        """
        return jax.tree.map(lambda leaf: self._sharding(leaf.shape), tree)

    def _sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        shares = self.batch_shards
        axes = [axis for axis, length in enumerate(shape) if length % shares == 0]
        if not self.divides_state or math.prod(shape) < _FEWEST or not axes:
            return self.state
        longest = max(axes, key=lambda axis: shape[axis])
        spec = PartitionSpec(*[None] * longest, "data")
        return NamedSharding(self.mesh, spec)


def global_layout() -> Layout:
    """Over all devices of all processes."""
    return Layout.over(jax.devices())


def placed(tree: _Tree, shardings: Any) -> _Tree:
    """Arrays of all processes, laid out in another way; all processes must call this."""
    return jax.jit(lambda arrays: arrays, out_shardings=shardings)(tree)


def one_device_layout() -> Layout:
    """On the first device of this process."""
    return Layout.over(jax.local_devices()[:1])


def check_batch_size(
    field: str, batch_size: int, layout: Layout, *, parts: int = 1
) -> None:
    """Raises UserError where the devices cannot share the batch equally.

    parts: that it is taken in, of config.train.accumulate.
    """
    shares = layout.batch_shards
    if batch_size % (shares * parts):
        devices = f"{layout.num_devices} devices"
        if layout.row_shards > 1:
            devices += f" by {layout.row_shards} that share a picture"
        if parts > 1:
            devices += f" times the {parts} of config.train.accumulate"
        raise UserError(
            f"config.{field}={batch_size} must be a multiple of the {devices}, such as "
            f"{next_multiple(batch_size, shares * parts)}"
        )


def check_row_shards(
    field: str, row_shards: int, devices: Sequence[jax.Device]
) -> None:
    """Raises UserError where a picture would be shared by parts of processes."""
    of_process = collections.Counter(device.process_index for device in devices)
    count = min(of_process.values())
    if any(number % row_shards for number in of_process.values()):
        fitting = [str(n) for n in range(1, count + 1) if count % n == 0]
        raise UserError(
            f"config.{field}={row_shards} must divide the {count} devices of each "
            f"process: one of {', '.join(fitting)}"
        )


def next_multiple(number: int, of: int) -> int:
    """The smallest multiple that is no smaller."""
    return -(-number // of) * of


def to_devices(batch: Mapping[str, np.ndarray], layout: Layout) -> dict[str, jax.Array]:
    """This process's share of a batch → arrays of the global batch, divided."""
    return {
        name: jax.make_array_from_process_local_data(layout.batch, array)
        for name, array in batch.items()
    }

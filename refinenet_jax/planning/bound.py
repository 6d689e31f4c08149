"""The least time that a program can take on a chip (Williams et al. 2009, roofline)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from refinenet_jax.planning.chips import Chip
from refinenet_jax.planning.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds of a step; each if nothing else took time.

    Attributes:
        compute: at the peak of the chip's arithmetic.
        memory: at the bandwidth of its memory.
        links: at that of its links.
    """

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """No step is shorter."""
        return max(self.compute, self.memory, self.links)

    @property
    def binds(self) -> str:
        """Which of the three is the longest."""
        return max(dataclasses.asdict(self).items(), key=lambda each: each[1])[0]

    def to_json(self, images: int) -> dict[str, Any]:
        """For plan.json; images: that a step takes."""
        return {
            **dataclasses.asdict(self),
            "seconds": self.seconds,
            "binds": self.binds,
            "images_per_second": images / self.seconds if self.seconds else None,
        }


def bound(
    chip: Chip,
    flops: Mapping[str, int],
    traffic: int,
    collectives: Sequence[Collective],
) -> Bound:
    """Of a program on one device.

    Args:
        chip: what one device can do.
        flops: of one device, by dtype in XLA's words.
        traffic: bytes from and to its memory.
        collectives: that it takes part in.
    """
    narrow = sum(count for dtype, count in flops.items() if dtype in ("bf16", "f16"))
    wide = sum(flops.values()) - narrow
    return Bound(
        compute=narrow / chip.bfloat16 + wide / chip.float32,
        memory=traffic / chip.bandwidth,
        links=sum(each.sent for each in collectives) / chip.links,
    )

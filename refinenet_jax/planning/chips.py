"""Peak arithmetic, memory and links of the chips, as their makers publish them."""

import dataclasses
from typing import Literal

_TERA, _GIGA, _GIBI = 1e12, 1e9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip; dense arithmetic, all rates per second.

    Attributes:
        name: as --topology has it.
        platform: "tpu" or "gpu", as jax has it.
        kinds: what jax calls such a device.
        bfloat16: multiplications and additions with bfloat16 factors.
        float32: likewise at jax's default precision, which is one bfloat16 pass on TPUs
            and TF32 on GPUs.
        memory: bytes that programs can have of it.
        bandwidth: bytes from and to it.
        links: bytes to other chips, in one direction, over all links together.
        source: where the numbers are from.
        devices: that jax makes of one chip.
    """

    name: str
    platform: Literal["tpu", "gpu"]
    kinds: tuple[str, ...]
    bfloat16: float
    float32: float
    memory: int
    bandwidth: float
    links: float
    source: str
    devices: int = 1

    def divided(self) -> "Chip":
        """One of the devices that jax makes of a chip."""
        parts = self.devices
        return dataclasses.replace(
            self,
            bfloat16=self.bfloat16 / parts,
            float32=self.float32 / parts,
            memory=self.memory // parts,
            bandwidth=self.bandwidth / parts,
            links=self.links / parts,
            devices=1,
        )


def _tpu(
    name: str,
    kinds: tuple[str, ...],
    tera: float,
    memory: float,
    bandwidth: float,
    links: float,
    page: str,
    devices: int = 1,
) -> Chip:
    """tera: 10¹² of bfloat16; memory: GiB; bandwidth and links: GB/s."""
    return Chip(
        name,
        "tpu",
        kinds,
        bfloat16=tera * _TERA,
        float32=tera * _TERA,
        memory=round(memory * _GIBI),
        bandwidth=bandwidth * _GIGA,
        links=links * _GIGA,
        source=f"cloud.google.com/tpu/docs/{page}, system architecture",
        devices=devices,
    )


def _gpu(
    name: str,
    kinds: tuple[str, ...],
    tera: float,
    tera_tf32: float,
    memory: int,
    bandwidth: float,
    links: float,
    sheet: str,
) -> Chip:
    """tera: 10¹²; memory: bytes as CUDA tells them; bandwidth and links: GB/s."""
    return Chip(
        name,
        "gpu",
        kinds,
        bfloat16=tera * _TERA,
        float32=tera_tf32 * _TERA,
        memory=memory,
        bandwidth=bandwidth * _GIGA,
        links=links * _GIGA,
        source=f"{sheet}; half of the figures with sparsity",
    )


# Links: the sheets of the TPUs give Gbit/s of a chip, those of the GPUs both directions
# together. Memory of v5e and v6e: what their compiler has programs take, a quarter and
# three quarters of a GiB below what is on the chip.
CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v2", ("TPU v2",), 46, 16, 700, 62, "v2", 2),
        _tpu("v3", ("TPU v3",), 123, 32, 900, 82, "v3", 2),
        _tpu("v4", ("TPU v4",), 275, 32, 1228, 300, "v4"),
        _tpu("v5e", ("TPU v5 lite", "TPU v5e"), 197, 15.75, 819, 200, "v5e"),
        _tpu("v5p", ("TPU v5", "TPU v5p"), 459, 95, 2765, 600, "v5p"),
        _tpu("v6e", ("TPU v6 lite", "TPU v6e"), 918, 31.25, 1640, 448, "v6e"),
        _tpu("tpu7x", ("TPU7x",), 2307, 192, 7380, 600, "tpu7x", 2),
        _gpu(
            "a100",
            ("NVIDIA A100-SXM4-80GB",),
            312,
            156,
            84_987_740_160,
            2039,
            300,
            "NVIDIA A100 Tensor Core GPU datasheet, SXM 80 GB",
        ),
        _gpu(
            "a100-40gb",
            ("NVIDIA A100-SXM4-40GB",),
            312,
            156,
            42_298_834_944,
            1555,
            300,
            "NVIDIA A100 Tensor Core GPU datasheet, SXM 40 GB",
        ),
        _gpu(
            "h100",
            ("NVIDIA H100 80GB HBM3",),
            989.4,
            494.7,
            84_942_979_072,
            3352,
            450,
            "NVIDIA H100 Tensor Core GPU datasheet, SXM",
        ),
        _gpu(
            "h200",
            ("NVIDIA H200",),
            989.4,
            494.7,
            150_108_307_456,
            4800,
            450,
            "NVIDIA H200 Tensor Core GPU datasheet, SXM",
        ),
        _gpu(
            "l4",
            ("NVIDIA L4",),
            121,
            60,
            23_659_347_968,
            300,
            32,
            "NVIDIA L4 Tensor Core GPU datasheet; links are PCIe 4.0 x16",
        ),
    )
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a device that jax calls so; None for one that is not in the table."""
    for chip in CHIPS.values():
        if device_kind in chip.kinds:
            return chip
    return None

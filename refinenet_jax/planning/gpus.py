"""What XLA's compiler has to know of a GPU that is not there."""

import dataclasses

from refinenet_jax.planning.chips import CHIPS


@dataclasses.dataclass(frozen=True)
class _Cores:
    """A GPU as CUDA's device properties tell it.

    Attributes:
        capability: major and minor.
        count: streaming multiprocessors.
        lanes: float32 units of each.
        threads: that one holds at once.
        shared: bytes of shared memory of each.
        shared_block: of these, what a block may ask for.
        cache: bytes of the second level.
        gigahertz: of the clock.
    """

    capability: tuple[int, int]
    count: int
    lanes: int
    threads: int
    shared: int
    shared_block: int
    cache: int
    gigahertz: float


_AMPERE = _Cores((8, 0), 108, 64, 2048, 167_936, 166_912, 41_943_040, 1.41)
_HOPPER = _Cores((9, 0), 132, 128, 2048, 233_472, 232_448, 52_428_800, 1.98)
_CORES = {
    "a100": _AMPERE,
    "a100-40gb": _AMPERE,
    "h100": _HOPPER,
    "h200": dataclasses.replace(_HOPPER, cache=62_914_560),
    "l4": _Cores((8, 9), 58, 128, 1536, 102_400, 101_376, 50_331_648, 2.04),
}


def target_config(name: str) -> str:
    """XLA's GpuTargetConfigProto in its text form, for a GPU of `CHIPS`."""
    chip, cores = CHIPS[name], _CORES[name]
    major, minor = cores.capability
    return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {cores.shared}
  threads_per_core_limit: {cores.threads}
  core_count: {cores.count}
  fpus_per_core: {cores.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {round(chip.bandwidth)}
  l2_cache_size: {cores.cache}
  clock_rate_ghz: {cores.gigahertz}
  device_memory_size: {chip.memory}
  shared_memory_per_block_optin: {cores.shared_block}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{chip.kinds[0]}"
"""

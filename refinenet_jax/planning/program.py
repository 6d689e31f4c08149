"""Compiles a program for a target and says what it takes there."""

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jaxlib
from jax.errors import JaxRuntimeError

from refinenet_jax.errors import UserError, first_line
from refinenet_jax.planning import cache, hlo
from refinenet_jax.planning.analysis import Analysis, analyse
from refinenet_jax.planning.bound import bound
from refinenet_jax.planning.products import products, total_flops
from refinenet_jax.planning.targets import CUDA_WHEELS, Target
from refinenet_jax.provenance import version_of

# Called with what is compiled and the seconds that it may take; see `log.waiting`.
Waiting = Callable[[str, float], contextlib.AbstractContextManager[None]]

_WITHOUT_TRITON: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# How a compiler tells what it would need: "Used 20.1G of 15.75G hbm".
_NEEDED = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")
# Seconds for a convolution or product, on one free core.
_SECONDS = {"tpu": 0.6, "gpu": 0.1}
_OTHER_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Program:
    """What is to be compiled.

    Attributes:
        name: for people, "the training step".
        lower: traces it.
        images: that one run takes, over all devices.
        parts: bytes on each device of its arguments by kind.
        parameter_shapes: of the parameters that have gradients.
        num_devices: that run it.
        dtype: that the arithmetic was asked for in.
    """

    name: str
    lower: Callable[[], jax.stages.Lowered]
    images: int
    parts: Mapping[str, int]
    parameter_shapes: Sequence[Sequence[int]]
    num_devices: int
    dtype: str


def plan(program: Program, target: Target, waiting: Waiting) -> dict[str, Any]:
    """What a program takes on a target, ready for JSON.

    Asked for the same program again it answers at once.

    Raises:
        UserError: the compiler refuses the program.
    """
    lowered = program.lower()
    text = lowered.as_text()
    about = f"{sorted(program.parts.items())} {program.images} {_compiler(target)}"
    key = cache.key(text, target.name, str(target.chip), str(target.memory), about)
    found = cache.load(key)
    if found is None:
        found = _compiled(program, lowered, target, waiting)
        cache.keep(key, found)
    return {"name": program.name, **found}


def _compiler(target: Target) -> str:
    """What compiles, and how it is set."""
    wheels = {"gpu": CUDA_WHEELS, "tpu": ["libtpu"]}.get(target.platform, [])
    versions = " ".join(
        f"{name} {version_of(name)}" for name in ("jaxlib", *wheels) if version_of(name)
    )
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    return f"{versions} {flags}"


def _compiled(
    program: Program, lowered: jax.stages.Lowered, target: Target, waiting: Waiting
) -> dict[str, Any]:
    asked = products(hlo.parse(_unoptimised(lowered)))
    flops = total_flops(asked)
    seconds = len(asked) * _SECONDS.get(target.platform, _OTHER_SECONDS)
    start = time.monotonic()
    try:
        compiled, refused = _compile(program, lowered, target, waiting, seconds)
    except JaxRuntimeError as error:
        needed = _NEEDED.search(str(error))
        if needed is None:
            raise UserError(_refusal(program, target, str(error))) from error
        return {
            "fits": False,
            "images": program.images,
            "compile_seconds": time.monotonic() - start,
            "flops_per_image": sum(flops.values()) / program.images,
            "bytes_per_device": {
                **program.parts,
                "total": round(float(needed[1]) * _UNITS[needed[2]]),
                "available": target.memory,
            },
            "said": first_line(error),
        }
    seconds = time.monotonic() - start
    analysis = analyse(
        compiled.as_text() or "", program.num_devices, program.parameter_shapes
    )
    sizes = _bytes(program, compiled.memory_analysis(), analysis, target)
    of_one = {name: count // program.num_devices for name, count in flops.items()}
    limits = None
    if target.chip:
        limits = bound(
            target.chip, of_one, analysis.traffic, analysis.collectives
        ).to_json(program.images)
    cost = compiled.cost_analysis() or {}
    return {
        "fits": sizes["total"] <= sizes["available"],
        "refused": refused,
        "images": program.images,
        "compile_seconds": seconds,
        "flops_per_image": sum(flops.values()) / program.images,
        "flops_by_dtype": flops,
        "flops_by_compiler": cost.get("flops"),
        "bytes_per_device": sizes,
        "traffic_bytes": analysis.traffic,
        "collective_bytes_per_step": sum(each.size for each in analysis.collectives),
        "collectives": [dataclasses.asdict(each) for each in analysis.collectives],
        "bound": limits,
        "products": analysis.products,
        "float32": analysis.wide if program.dtype == "bfloat16" else [],
        "largest_buffers": analysis.largest,
        "padded": analysis.padded,
    }


def _compile(
    program: Program,
    lowered: jax.stages.Lowered,
    target: Target,
    waiting: Waiting,
    seconds: float,
) -> tuple[jax.stages.Compiled, str]:
    """The program, and what is refused of it when Triton writes its products.

    For an attached GPU XLA tries several ways and takes the quickest; for one that is
    not there it takes the first, which does not exist for every product.
    """
    try:
        with waiting(f"{program.name} for {target.name}", seconds):
            return lowered.compile(), ""
    except JaxRuntimeError as error:
        if target.platform != "gpu":
            raise
        refused = _refusal(program, target, str(error))
    with waiting(f"{program.name} for {target.name} without Triton", seconds):
        return lowered.compile(compiler_options=_WITHOUT_TRITON), refused


def _unoptimised(lowered: jax.stages.Lowered) -> str:
    """As it was written, for all devices together; the same for every target."""
    program: Any = lowered.compiler_ir("hlo")
    return program.as_hlo_text()


def _bytes(
    program: Program, sizes: Any, analysis: Analysis, target: Target
) -> dict[str, int]:
    """By kind; the sums are the compiler's.

    Temporaries are split as they were followed, kept activations first.
    """
    temporaries = sizes.temp_size_in_bytes
    kept = min(analysis.kept, temporaries)
    gradients = min(analysis.gradients, temporaries - kept)
    arguments = sizes.argument_size_in_bytes
    named = sum(program.parts.values())
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    code = sizes.generated_code_size_in_bytes
    return {
        **program.parts,
        # Tiles that are not full, and results that take no argument's place.
        "padding_and_results": max(0, arguments - named) + max(0, results),
        "activations": kept,
        "gradients": gradients,
        "temporaries": temporaries - kept - gradients,
        "code": code,
        "total": max(arguments, named) + max(0, results) + temporaries + code,
        "available": target.memory,
    }


def _refusal(program: Program, target: Target, said: str) -> str:
    """Names the layer, where the compiler tells the instruction."""
    names = re.findall(r'op_name="([^"]+)"', said)
    layer = next(filter(None, map(hlo.layer_of, names)), "")
    where = f" in layer {layer}" if layer else ""
    return (
        f"the compiler for {target.name} refuses {program.name}{where}: "
        f"{first_line(ValueError(said))[:300]}; jaxlib {jaxlib.__version__}"
    )

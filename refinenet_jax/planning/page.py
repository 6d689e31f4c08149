"""A plan as a page for a person."""

from collections.abc import Iterator
from typing import Any

_LEAST_SHOWN = 2**16  # bytes
_NOT_ADDED = {"total", "available"}
_NAMES = {
    "parameters": "parameters and statistics",
    "optimizer": "optimiser state",
    "average": "average of the network",
    "other_state": "other state",
    "batch": "a batch",
    "padding_and_results": "padding and results",
    "activations": "activations kept for the backward pass",
    "gradients": "gradients",
    "temporaries": "other temporaries",
    "code": "the program itself",
}
_BINDS = {"compute": "arithmetic", "memory": "memory bandwidth", "links": "links"}


def page(plan: dict[str, Any]) -> str:
    """All of plan.json that a person reads first."""
    head = (
        f"{plan['variant']}, {plan['dtype']}, {plan['parameters']:,} parameters, on "
        f"{plan['devices']} × {plan['device']}"
        + (f" ({plan['topology']}, not attached)" if plan["topology"] else "")
    )
    parts = [head, *_program(plan), *_batches(plan)]
    for evaluation in plan["evaluation"]:
        parts += _program(evaluation)
    if plan["chip"]:
        parts += ["", f"rates: {plan['chip']['source']}"]
    else:
        parts += ["", "no bound: the rates of this device are not known"]
    return "\n".join(parts)


def _batches(plan: dict[str, Any]) -> Iterator[str]:
    """What else could fit."""
    if not plan["search"]:
        yield (
            f"  a batch of about {plan['about_largest_batch_per_device']} on each device "
            f"would fill it, here {plan['batch_per_device']:g}; --config.plan.search tries"
        )
        return
    yield "  largest batch on each device"
    for row in plan["search"]:
        if not row["batch_per_device"]:
            yield f"    model.remat={row['remat']}: none"
            continue
        speed = row["images_per_second"]
        at_most = f", at most {speed:,.0f} images a second" if speed else ""
        yield (
            f"    model.remat={row['remat']}: {row['batch_per_device']} in "
            f"{gibibytes(row['bytes'])}{at_most}"
        )
        if row["accumulate"] != 1:
            told = row["accumulate"] or "nothing"
            yield (
                f"      {plan['batch_per_device']:g} fit with train.accumulate={told}"
            )


def _program(plan: dict[str, Any]) -> Iterator[str]:
    sizes = plan["bytes_per_device"]
    yield ""
    yield plan["name"][0].upper() + plan["name"][1:]
    spare = sizes["available"] - sizes["total"]
    yield (
        f"  {'fits' if plan['fits'] else 'DOES NOT FIT'}: {gibibytes(sizes['total'])} of "
        f"{gibibytes(sizes['available'])} on each device, {gibibytes(abs(spare))} "
        f"{'to spare' if spare >= 0 else 'too much'}"
    )
    for name, size in sizes.items():
        if name not in _NOT_ADDED and size >= _LEAST_SHOWN:
            yield f"  {gibibytes(size):>12}  {_NAMES.get(name, name)}"
    yield f"  {plan['flops_per_image'] / 1e9:,.1f} GFLOP an image"
    if "said" in plan:
        yield f"  the compiler: {plan['said']}"
        return
    if plan["refused"]:
        yield f"  {plan['refused']}"
        yield "  planned with XLA_FLAGS=--xla_gpu_enable_triton_gemm=false in its place"
    yield from _rates(plan)
    yield from _collectives(plan)
    yield from _products(plan)
    yield from _tensors(plan)


def _rates(plan: dict[str, Any]) -> Iterator[str]:
    limits = plan["bound"]
    if not limits:
        return
    parts = ", ".join(
        f"{_BINDS[name]} {milliseconds(limits[name])}"
        for name in ("compute", "memory", "links")
    )
    yield (
        f"  at least {milliseconds(limits['seconds'])}, at most "
        f"{limits['images_per_second']:,.0f} images a second: {_BINDS[limits['binds']]} "
        f"binds ({parts})"
    )


def _collectives(plan: dict[str, Any]) -> Iterator[str]:
    for each in plan["collectives"]:
        yield (
            f"  {each['count']} × {each['kind']} of {each['dtype']}, "
            f"{each['size'] / 2**20:,.1f} MiB a run"
        )


def _products(plan: dict[str, Any]) -> Iterator[str]:
    counts = ", ".join(f"{n} in {dtype}" for dtype, n in plan["products"].items())
    yield f"  convolutions and products: {counts}"
    for each in plan["float32"]:
        yield f"    float32: {each['count']} × {each['kind']} in {_layer(each)}"


def _tensors(plan: dict[str, Any]) -> Iterator[str]:
    largest = [b for b in plan["largest_buffers"] if b["bytes"] >= _LEAST_SHOWN]
    if largest:
        yield "  largest buffers at the fullest moment"
    for each in largest:
        kept = ", kept for the backward pass" if each["kept_for_backward"] else ""
        yield (
            f"  {each['bytes'] / 2**20:>10,.1f} MiB  {each['array']} of "
            f"{_layer(each)}{kept}"
        )
    if plan["padded"]:
        yield "  tensors that their tiles enlarge"
    for each in plan["padded"]:
        yield (
            f"  {each['padded_bytes'] / 2**20:>10,.1f} MiB  {each['array']} of "
            f"{_layer(each)}, in place of {each['bytes'] / 2**20:,.1f}"
        )


def _layer(each: dict[str, Any]) -> str:
    return each["layer"] or "no layer"


def gibibytes(number: int) -> str:
    """1610612736 → "1.50 GiB", 15728640 → "15.0 MiB"."""
    if abs(number) < 2**28:
        return f"{number / 2**20:.1f} MiB"
    return f"{number / 2**30:.2f} GiB"


def milliseconds(seconds: float) -> str:
    """0.01234 → "12.3 ms"."""
    return f"{1000 * seconds:,.1f} ms"

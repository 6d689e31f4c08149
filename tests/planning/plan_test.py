"""Plans of small programs: what they hold, that they are kept, and what is refused."""

import contextlib

import jax
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.planning import cache, program, targets
from refinenet_jax.planning.bound import bound
from refinenet_jax.planning.chips import CHIPS
from refinenet_jax.planning.collectives import Collective
from refinenet_jax.planning.page import page
from refinenet_jax.planning.program import Program, plan
from tests.planning.programs import SHAPES, lowered_gradient


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A program, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Program(
        "a step",
        lowered_gradient,
        images=4,
        parts={"parameters": 9216, "batch": 4 * 32 * 32 * 8 * 4},
        parameter_shapes=SHAPES,
        num_devices=1,
        dtype="bfloat16",
    )


@contextlib.contextmanager
def silently(what, seconds):
    assert seconds > 0
    yield


def never(what, seconds):
    raise AssertionError(f"{what} is compiled again")


def test_a_plan_is_made_once(small):
    target = targets.attached(2**30)
    first = plan(small, target, silently)
    assert plan(small, target, never) == first
    assert first["fits"]
    sizes = first["bytes_per_device"]
    kinds = [size for name, size in sizes.items() if name not in ("total", "available")]
    assert sum(kinds) == sizes["total"]
    with pytest.raises(AssertionError, match="compiled again"):
        plan(small, targets.attached(2**29), never)


def test_what_is_too_large_does_not_fit(small):
    assert not plan(small, targets.attached(2**10), silently)["fits"]


class Refusing:
    """As jax.stages.Lowered, with a compiler that says something else."""

    def __init__(self, message):
        self._lowered, self._message = lowered_gradient(), message

    def __getattr__(self, name):
        return getattr(self._lowered, name)

    def compile(self):
        raise jax.errors.JaxRuntimeError(self._message)


def test_a_compiler_that_runs_out_of_memory_tells_how_much(small):
    said = "RESOURCE_EXHAUSTED: Ran out of memory. Used 20.5G of 15.75G hbm."
    small = program.dataclasses.replace(small, lower=lambda: Refusing(said))
    found = plan(small, targets.attached(2**30), silently)
    assert not found["fits"]
    assert found["bytes_per_device"]["total"] == 20.5 * 2**30
    assert found["said"] == said


def test_a_refused_program_is_told_with_its_layer(small):
    said = 'INTERNAL: no tiles for %dot.6, metadata={op_name="jit(f)/jvp(loss)/dot"}'
    small = program.dataclasses.replace(small, lower=lambda: Refusing(said))
    with pytest.raises(UserError, match="refuses a step in layer loss: INTERNAL"):
        plan(small, targets.attached(2**30), silently)


def test_a_gpu_has_another_way_to_products(small):
    said = 'INTERNAL: no tiles for %dot.6, metadata={op_name="jit(f)/jvp(loss)/dot"}'

    class Second(Refusing):
        def compile(self, compiler_options=None):
            if compiler_options is None:
                return super().compile()
            assert compiler_options == {"xla_gpu_enable_triton_gemm": False}
            return self._lowered.compile()

    small = program.dataclasses.replace(small, lower=lambda: Second(said))
    target = program.dataclasses.replace(targets.attached(2**30), platform="gpu")
    found = plan(small, target, silently)
    assert found["fits"]
    assert "refuses a step in layer loss" in found["refused"]


def test_a_page_tells_all_of_it(small):
    target = program.dataclasses.replace(targets.attached(2**30), chip=CHIPS["v5e"])
    found = plan(small, target, silently)
    about = {
        "variant": "a",
        "parameters": 1000,
        "devices": 1,
        "device": "TPU",
        "topology": "v5e:1x1",
        "evaluation": [],
        "batch_per_device": 4,
        "about_largest_batch_per_device": 96,
        "search": [],
        "chip": vars(CHIPS["v5e"]),
    }
    text = page({**about, **found, "dtype": "bfloat16"})
    assert "a, bfloat16, 1,000 parameters, on 1 × TPU (v5e:1x1, not attached)" in text
    assert "A step\n  fits: " in text
    assert "images a second: memory bandwidth binds" in text
    assert "kept for the backward pass" in text
    assert "cloud.google.com" in text
    assert "a batch of about 96" in text
    none = {"remat": "none", "batch_per_device": 2, "accumulate": 4, "bytes": 2**30}
    rows = [{**none, "images_per_second": 9.0}, {"remat": "all", "batch_per_device": 0}]
    text = page({**about, **found, "dtype": "bfloat16", "search": rows})
    assert "model.remat=none: 2 in 1.00 GiB, at most 9 images a second\n" in text
    assert "4 fit with train.accumulate=4\n" in text
    assert "model.remat=all: none\n" in text


def test_the_longest_of_three_binds():
    chip = CHIPS["h100"]
    flops = {"bf16": round(chip.bfloat16), "f32": round(chip.float32)}
    sent = [Collective("all-reduce", "f32", 1, 1, round(3 * chip.links))]
    found = bound(chip, flops, round(chip.bandwidth), sent)
    assert found.compute == pytest.approx(2)
    assert found.memory == pytest.approx(1)
    assert (found.seconds, found.binds) == (pytest.approx(3), "links")
    assert found.to_json(6)["images_per_second"] == pytest.approx(2)


def test_a_cache_that_cannot_be_read_or_written_is_none(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.keep("a", {})
    assert cache.load("a") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.keep("a", {"b": 1})
    assert cache.load("a") == {"b": 1}
    next(tmp_path.rglob("a.json")).write_text("{")
    assert cache.load("a") is None

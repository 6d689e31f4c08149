"""Programs that are compiled here: what is said of them against what XLA says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax.planning import buffers, hlo
from refinenet_jax.planning.analysis import analyse, traffic
from refinenet_jax.planning.products import products, total_flops
from tests.planning.programs import SHAPES, convolve, lowered_gradient


@pytest.fixture(scope="module")
def compiled():
    return lowered_gradient().compile()


def unoptimised(lowered):
    return hlo.parse(lowered.compiler_ir("hlo").as_hlo_text())


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("of", ["value", "kernel", "image"])
def test_arithmetic_is_counted_as_xla_does(stride, of):
    """With zeros around the picture, and between its pixels in gradients, left out."""

    def f(x, kernel):
        return convolve(x, kernel, stride).sum()

    f = {"value": f, "kernel": jax.grad(f, 1), "image": jax.grad(f)}[of]
    arrays = np.zeros((2, 15, 17, 3), np.float32), np.zeros((3, 3, 3, 5), np.float32)
    lowered = jax.jit(f).lower(*arrays)
    found = sum(each.flops for each in products(unoptimised(lowered)))
    # XLA counts the sum, too, and what makes gradients of it.
    assert found == pytest.approx(lowered.cost_analysis()["flops"], rel=0.03)


def test_products_are_counted():
    lowered = jax.jit(lambda x, y: jnp.einsum("bij,bjk->bik", x, y)).lower(
        *np.zeros((2, 4, 5, 5), np.float32)
    )
    assert total_flops(products(unoptimised(lowered))) == {"f32": 2 * 4 * 5 * 5 * 5}


def test_the_products_of_a_loop_count_as_often_as_it_runs():
    def f(x):
        return jax.lax.scan(lambda y, _: (y @ x, None), x, length=5)[0]

    lowered = jax.jit(f).lower(np.zeros((4, 4), np.float32))
    expected = {"f32": 5 * 2 * 4 * 4 * 4}
    assert total_flops(products(unoptimised(lowered))) == expected


def test_a_loop_that_stacks_its_results_writes_each_once():
    rows = np.zeros((100, 256, 256), np.float32)
    compiled = jax.jit(lambda x: jax.lax.map(jnp.sin, x)).lower(rows).compile()
    found = traffic(hlo.parse(compiled.as_text()))
    # Read and written once, and counted a second time where a copy is apart.
    assert 2 * rows.nbytes <= found < 4.2 * rows.nbytes


def test_what_is_copied_is_not_written_too():
    text = """HloModule m
ENTRY %main (p: f32[1024]) -> f32[1024] {
  %p = f32[1024]{0} parameter(0)
  %s = (f32[1024]{0}, f32[1024]{0}, u32[]) copy-start(%p)
  ROOT %d = f32[1024]{0} copy-done(%s)
}
"""
    assert traffic(hlo.parse(text)) == 2 * 4096 + 4


def test_each_product_has_its_dtype_and_layer():
    found = products(unoptimised(lowered_gradient()))
    # Of the first kernel there is no gradient of the picture.
    assert sorted(each.dtype for each in found) == ["bf16"] * 2 + ["f32"] * 3


def test_memory_is_followed_as_the_compiler_has_it(compiled):
    analysis = analyse(compiled.as_text(), 1, SHAPES)
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    peak = buffers.peak(hlo.parse(compiled.as_text())).size
    assert peak == pytest.approx(temporaries, rel=0.2)
    assert 0 < analysis.kept <= peak
    layers = {each["layer"] for each in analysis.largest}
    assert "backbones.0.stem" in layers
    assert len(analysis.largest) <= 10
    assert analysis.traffic > temporaries


def test_gradients_of_several_devices_are_added_up():
    text = lowered_gradient(num_devices=4).compile().as_text()
    found = analyse(text, 4, SHAPES).collectives
    values = sum(int(np.prod(shape)) for shape in SHAPES)
    sizes = {"f32": 4, "bf16": 2}
    assert {each.kind for each in found} == {"all-reduce"}
    assert sum(each.size // sizes[each.dtype] for each in found) == values
    assert all(each.sent == each.size * 2 * 3 / 4 for each in found)

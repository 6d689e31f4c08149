"""The text of programs, and what is found in it."""

import pytest

from refinenet_jax.planning import hlo
from refinenet_jax.planning.buffers import peak
from refinenet_jax.planning.collectives import Collective, collectives
from refinenet_jax.planning.products import products, total_flops

TEXT = """\
HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %y = f32[8]{0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%sum, metadata={op_name="jit(f)/while/body/add"}
  ROOT %t = (s32[], /*index=1*/f32[8]{0}) tuple(%i, %y)
}

%cond (q: (s32[], f32[8])) -> pred[] {
  %q = (s32[], f32[8]{0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main.1 (a: bf16[2,16,3], b: f32[8]) -> (s32[], f32[8]) {
  %a = bf16[2,16,3]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[8]{0:T(256)S(1)} parameter(1)
  %s = ((bf16[2,16,3]{2,1,0:T(8,128)(2,1)}), bf16[1,16,3]{2,1,0:T(8,128)(2,1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:1], [0:16], [0:3]}
  %d = bf16[1,16,3]{2,1,0:T(8,128)(2,1)} slice-done(%s)
  %c = s32[] constant(0)
  %r = f32[8]{0} custom-call(%d, %b), custom_call_target="__cublas$gemm", metadata={op_name="jit(f)/jvp(decoder)/blocks.1/pooling/jit(relu)/dot_general" stack_frame_id=3}
  %in = (s32[], f32[8]{0}) tuple(%c, %r)
  ROOT %w = (s32[], f32[8]{0}) while(%in), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"22"}}
}
"""


@pytest.fixture(scope="module")
def module():
    return hlo.parse(TEXT)


def test_instructions_are_read(module):
    assert module.entry == "main.1"
    entry = module.computations["main.1"]
    assert entry["a"].number == 0
    assert entry["b"].arrays == [hlo.Array("f32", (8,), "{0:T(256)S(1)}")]
    assert [str(array) for array in entry["s"].arrays] == [
        "bf16[2,16,3]",
        "bf16[1,16,3]",
        "s32[]",
    ]
    assert entry["r"].operands == ("d", "b")
    assert entry["w"].called == ("cond", "body")
    assert module.root("main.1").name == "w"
    assert module.layer(entry["r"]) == "decoder.blocks.1.pooling"


def test_what_a_loop_sends_counts_as_often_as_it_runs(module):
    [found] = collectives(module, num_devices=8)
    sent = round(22 * 32 * 2 * 3 / 4)  # a ring of four
    assert found == Collective("all-reduce", "f32", count=22, size=22 * 32, sent=sent)


def test_products_of_libraries_are_found(module):
    [found] = products(module)
    assert (found.kind, found.dtype, found.layer) == (
        "product",
        "f32",
        "decoder.blocks.1.pooling",
    )


def test_memory_is_followed_through_copies_and_loops(module):
    fullest = peak(module)
    # The slice, whose tiles are 16 x 128, and the all-reduce; what enters the loop
    # leaves the program.
    assert fullest.size == 2 * 16 * 128
    assert [str(b.array) for b in fullest.buffers] == ["bf16[1,16,3]"]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("jit(step)/jvp(backbones.0)/stages.2.1/conv_general_dilated", "backbones.0.stages.2.1"),
        ("jit(step)/jvp(backbones.0)/stages.2/1/conv_general_dilated", "backbones.0.stages.2.1"),
        ("jit(step)/jvp(backbones.0)/stages.2/1_to_22/while/body/mul", "backbones.0.stages.2.1_to_22"),
        ("jit(step)/transpose(jvp(decoder))/blocks.3/fusion/oi,bi->bo/dot", "decoder.blocks.3.fusion"),
        ("jit(step)/jvp(loss)/reduce_sum", "loss"),
        ("jit(step)/transpose(jvp(backbones.0))/checkpoint/stages.0.1/rematted_computation/mul", "backbones.0.stages.0.1"),
        ("jit(step)/jvp()/jit(_threefry)/build.<locals>.loss_of/add", ""),
        ("jit(step)/add", ""),
    ],
)  # fmt: skip
def test_layers_are_those_of_the_names(name, layer):
    assert hlo.layer_of(name) == layer


@pytest.mark.parametrize(
    ("array", "padded"),
    [
        (hlo.Array("f32", (4, 3), ""), 48),
        (hlo.Array("f32", (4, 3), "{1,0:T(8,128)}"), 8 * 128 * 4),
        (hlo.Array("bf16", (16, 9, 128), "{2,1,0:T(8,128)(2,1)}"), 16 * 16 * 128 * 2),
        (hlo.Array("bf16", (16, 9, 128), "{2,0,1:T(8,128)(2,1)}"), 16 * 9 * 128 * 2),
        (hlo.Array("f32", (100,), "{0:T(256)}"), 1024),
        (hlo.Array("f32", (), "{:T(128)}"), 4),
    ],
)
def test_tiles_are_filled_up(array, padded):
    assert array.padded_size == padded


def test_total_flops_are_by_dtype(module):
    assert total_flops(products(module)) == {"f32": 0}

import jax
import jax.numpy as jnp
import pytest

from trainer.plan.hlo import Collective, Program, Shape
from trainer.plan.jaxpr_flops import executed_flops

# As libtpu writes one for 64 chips: a loop of three rounds, its end only in its condition; a
# collective in it, and one of two arrays outside; S(1) is memory on the chip.
TEXT = """\
HloModule jit_step, is_scheduled=true, num_partitions=64

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%slice_of (whole: f32[3,256,128], at: s32[]) -> bf16[256,128] {
  %whole = f32[3,256,128]{2,1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %part = f32[1,256,128]{2,1,0:T(8,128)} dynamic-slice(%whole, %at, %zero, %zero), sizes={1,256,128}
  %flat = f32[256,128]{1,0:T(8,128)} bitcast(%part)
  ROOT %narrow = bf16[256,128]{1,0:T(8,128)(2,1)S(1)} convert(%flat)
}

%body (state: (s32[], f32[3,256,128])) -> (s32[], f32[3,256,128]) {
  %state = (s32[]{:T(128)}, f32[3,256,128]{2,1,0:T(8,128)}) parameter(0)
  %round = s32[]{:T(128)} get-tuple-element(%state), index=0
  %stack = f32[3,256,128]{2,1,0:T(8,128)} get-tuple-element(%state), index=1
  %read = bf16[256,128]{1,0:T(8,128)(2,1)S(1)} fusion(%stack, %round), kind=kLoop, calls=%slice_of
  %whole_of = bf16[512,128]{1,0:T(8,128)(2,1)} all-gather(%read), replica_groups=[32,2]<=[64], \
dimensions={0}
  ROOT %next = (s32[]{:T(128)}, f32[3,256,128]{2,1,0:T(8,128)}) tuple(%round, %stack)
}

%condition (state.1: (s32[], f32[3,256,128])) -> pred[] {
  %end = s32[]{:T(128)} constant(3)
  %state.1 = (s32[]{:T(128)}, f32[3,256,128]{2,1,0:T(8,128)}) parameter(0)
  %round.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %goes_on = pred[]{:T(512)} compare(%round.1, %end), direction=LT
}

ENTRY %main (gradient: f32[768,12,64], bias: f32[768]) -> f32[768] {
  %gradient = f32[768,12,64]{0,2,1:T(8,128)} parameter(0)
  %bias = f32[768]{0:T(1024)} parameter(1)
  %start = (s32[]{:T(128)}, f32[3,256,128]{2,1,0:T(8,128)}) custom-call(), custom_call_target="Make"
  %loop = (s32[]{:T(128)}, f32[3,256,128]{2,1,0:T(8,128)}) while(%start), condition=%condition, \
body=%body
  %all = (f32[768,12,64]{0,2,1:T(8,128)}, /*index=1*/f32[768]{0:T(1024)}) all-reduce(%gradient, \
%bias), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add, metadata={op_name="a(b"}
  ROOT %second = f32[768]{0:T(1024)} get-tuple-element(%all), index=1
}
"""


def test_collectives_have_the_shapes_of_their_operands_and_count_as_often_as_they_run():
    reduced, gathered = Program(TEXT).collectives()
    assert reduced == Collective(
        "all-reduce", (Shape("f32", (768, 12, 64)), Shape("f32", (768,))), devices=4, times=1
    )
    (operand,) = gathered.operands
    assert (gathered.kind, str(operand), gathered.times) == ("all-gather", "bf16[256,128]", 3)
    assert (gathered.devices, gathered.sent) == (2, 256 * 128 * 2)


def test_traffic_counts_bytes_read_and_written():
    stack = 3 * 256 * 128 * 4
    read = stack // 3 + 2 * 4  # a slice a round, two numbers; its copy stays on the chip
    gathered = 512 * 128 * 2
    reduced = 2 * 4 * (768 * 12 * 64 + 768)
    compared = 4 + 4 + 1
    expected = stack + 4 + 3 * (read - 4 + gathered + compared) + reduced
    assert Program(TEXT).memory_traffic() == expected


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        Program("HloModule nothing")


def layers(x, weights):
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return x.sum()


def scanned(x, weights):
    return jax.lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0].sum()


def test_flops_and_traffic_of_unrolled_layers_are_the_compilers():
    x, weights = jnp.ones((64, 128)), jnp.ones((3, 128, 128))
    compiled = jax.jit(jax.grad(layers, argnums=1)).lower(x, weights).compile()
    counted = compiled.cost_analysis() or {}
    assert Program(compiled.as_text() or "").memory_traffic() == counted["bytes accessed"]
    products = executed_flops(jax.make_jaxpr(jax.grad(layers, argnums=1))(x, weights))
    assert (
        products == (3 + 2 + 3) * 2 * 64 * 128 * 128
    )  # forward; to weights, and to inputs but one
    assert products < counted["flops"] < 1.05 * products


def test_loops_and_recomputation_count_per_execution():
    x, weights = jnp.ones((64, 128)), jnp.ones((3, 128, 128))
    once = executed_flops(jax.make_jaxpr(layers)(x, weights))
    assert executed_flops(jax.make_jaxpr(scanned)(x, weights)) == once
    again = jax.grad(jax.checkpoint(layers), argnums=1)
    kept = jax.grad(layers, argnums=1)
    ratio = executed_flops(jax.make_jaxpr(again)(x, weights)) / executed_flops(
        jax.make_jaxpr(kept)(x, weights)
    )
    assert 1.2 < ratio < 1.4


def test_concatenated_operands_are_distinguished():
    """As CUDA's compiler sums up gradients."""
    text = """\
HloModule jit_step, is_scheduled=true, num_partitions=2

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%joined (p: f32[6], q: f32[4]) -> f32[10] {
  %p = f32[6]{0} parameter(0)
  %q = f32[4]{0} parameter(1)
  ROOT %both = f32[10]{0} concatenate(%p, %q), dimensions={0}
}

ENTRY %main (x: f32[6], y: f32[4]) -> f32[10] {
  %x = f32[6]{0} parameter(0)
  %y = f32[4]{0} parameter(1)
  %flat = f32[10]{0} fusion(%x, %y), kind=kLoop, calls=%joined
  %begun = f32[10]{0} all-reduce-start(%flat), replica_groups={{0,1}}, to_apply=%add
  ROOT %done = f32[10]{0} all-reduce-done(%begun)
}
"""
    (found,) = Program(text).collectives()
    assert found.operands == (Shape("f32", (6,)), Shape("f32", (4,)))
    assert found.bytes == 40

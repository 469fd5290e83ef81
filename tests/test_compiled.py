"""Bytes that a compiled module reads and writes: by hand, beside the compiler's own count, and loops by their turns."""

import jax
import jax.numpy as jnp
import pytest

from ctxjax import compiled

MODULE = """
HloModule step

%sliced (stack: f32[10,8,16], place: s32[], x: f32[8,16]) -> f32[8,16] {
  %stack = f32[10,8,16]{2,1,0} parameter(0)
  %place = s32[] parameter(1)
  %x = f32[8,16]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %part = f32[1,8,16]{2,1,0} dynamic-slice(%stack, %place, %zero, %zero), dynamic_slice_sizes={1,8,16}
  %flat = f32[8,16]{1,0} bitcast(%part)
  ROOT %sum = f32[8,16]{1,0} add(%flat, %x)
}

%updated (made: f32[10,8,16], place.1: s32[], y: f32[8,16]) -> f32[10,8,16] {
  %made = f32[10,8,16]{2,1,0} parameter(0)
  %place.1 = s32[] parameter(1)
  %y = f32[8,16]{1,0} parameter(2)
  %row = f32[1,8,16]{2,1,0} bitcast(%y)
  %none = s32[] constant(0)
  ROOT %put = f32[10,8,16]{2,1,0} dynamic-update-slice(%made, %row, %place.1, %none, %none)
}

%body (p: (s32[], f32[10,8,16], f32[10,8,16], f32[8,16])) -> (s32[], f32[10,8,16], f32[10,8,16], f32[8,16]) {
  %p = (s32[], f32[10,8,16]{2,1,0}, f32[10,8,16]{2,1,0}, f32[8,16]{1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%p), index=0
  %stacked = f32[10,8,16]{2,1,0} get-tuple-element(%p), index=1
  %out = f32[10,8,16]{2,1,0} get-tuple-element(%p), index=2
  %carried = f32[8,16]{1,0} get-tuple-element(%p), index=3
  %next = f32[8,16]{1,0} fusion(%stacked, %turn, %carried), kind=kLoop, calls=%sliced
  %kept = f32[10,8,16]{2,1,0} fusion(%out, %turn, %next), kind=kLoop, calls=%updated
  ROOT %all = (s32[], f32[10,8,16]{2,1,0}, f32[10,8,16]{2,1,0}, f32[8,16]{1,0}) tuple(%turn, %stacked, %kept, %next)
}

%condition (q: (s32[], f32[10,8,16], f32[10,8,16], f32[8,16])) -> pred[] {
  %q = (s32[], f32[10,8,16]{2,1,0}, f32[10,8,16]{2,1,0}, f32[8,16]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%q), index=0
  %ten = s32[] constant(10)
  ROOT %less = pred[] compare(%count, %ten), direction=LT
}

ENTRY %main (a: f32[10,8,16], b: f32[8,16]) -> f32[8,16] {
  %a = f32[10,8,16]{2,1,0} parameter(0)
  %b = f32[8,16]{1,0} parameter(1)
  %start = s32[] constant(0)
  %begin = (s32[], f32[10,8,16]{2,1,0}, f32[10,8,16]{2,1,0}, f32[8,16]{1,0}) tuple(%start, %a, %a, %b)
  %loop = (s32[], f32[10,8,16]{2,1,0}, f32[10,8,16]{2,1,0}, f32[8,16]{1,0}) while(%begin), condition=%condition, \
body=%body, backend_config={"known_trip_count":{"n":"10"}}
  %last = f32[8,16]{1,0} get-tuple-element(%loop), index=3
  %near = (f32[8,16]{1,0:T(8,128)S(1)}, f32[8,16]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%last)
  %there = f32[8,16]{1,0:T(8,128)S(1)} copy-done(%near)
  ROOT %end = f32[8,16]{1,0:T(8,128)} negate(%there)
}
"""


def test_bytes_of_a_module_made_by_hand():
    """In each turn a row of the stack, the index, the carry and what is made of them; then the index and a row put into
    the other stack; then a comparison. Behind the loop one array is fetched onto the core, and written from there."""
    row, index = 8 * 16 * 4, 4
    turn = (row + index + row + row) + (index + row + row) + (index + index + 1)
    assert compiled.bytes_accessed(MODULE) == pytest.approx(10 * turn + 2 * row, abs=10 * index)


def test_an_all_reduce_passes_twice():
    traffic = {"all-reduce": compiled.Traffic(2, 100), "all-gather": compiled.Traffic(1, 30)}
    assert compiled.sent(traffic) == 230


def chain(x, weights):
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return x.sum()


def scanned(x, weights):
    return jax.lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0].sum()


def text_of(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()


def test_without_loops_it_is_what_the_compiler_counts():
    program = text_of(jax.grad(chain, argnums=1), (64, 128), (6, 128, 128))
    assert compiled.bytes_accessed(program.as_text()) == pytest.approx(
        program.cost_analysis()["bytes accessed"], rel=0.05
    )


def test_a_loop_counts_as_often_as_it_runs():
    """Which the compiler does not: it has one of twelve turns."""
    program = text_of(scanned, (256, 128), (12, 128, 128))
    assert 6 < compiled.bytes_accessed(program.as_text()) / program.cost_analysis()["bytes accessed"] < 12
    half = text_of(scanned, (256, 128), (6, 128, 128))
    body = (compiled.bytes_accessed(program.as_text()) - compiled.bytes_accessed(half.as_text())) / 6
    assert body >= (128 * 128 + 2 * 256 * 128) * 4  # what a product reads and writes

"""Products of all steps of a window at once, which cost nothing for steps behind the last one that is used; and what a
recurrent loop does at one step.

A window has one static shape however long its text is. Its steps are taken in blocks, and a loop with as many turns as
the text needs leaves the rest at zero. Reverse differentiation knows no such loop, so the derivative is written here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MOST_STEPS = 16  # of a block


def affine(
    x: Float[Array, "S T B X"],
    kernel: Float[Array, "S X Y"],
    bias: Float[Array, "S Y"],
    used: Int[Array, ""] | None = None,
) -> Float[Array, "S T B Y"]:
    """`x @ kernel + bias` in the dtype of the kernel; zero for whole blocks of steps from `used` on."""
    if used is None:
        return _affine_block(x, kernel, bias)
    return _affine(x, kernel, bias, used)


def outer(
    left: Float[Array, "S T B X"], right: Float[Array, "S T B Y"], used: Int[Array, ""] | None = None
) -> Float[Array, "S X Y"]:
    """Sum over steps and rows of the outer products, in f32; steps from `used` on must be zero in `right`."""
    if used is None:
        return _outer_block(left, right)
    size, turns = _blocks(left.shape[1], used)

    def add(turn: Array, total: Array) -> Array:
        return total + _outer_block(_block(left, turn, size), _block(right, turn, size))

    zeros = jnp.zeros((left.shape[0], left.shape[3], right.shape[3]), jnp.float32)
    return jax.lax.fori_loop(0, turns, add, zeros)


def product(x: Array, weights: Array) -> Array:
    """`[S B X] @ [S X Y]` in the dtype of the weights, summed in f32."""
    return jax.lax.dot_general(
        x.astype(weights.dtype), weights, (((2,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32
    )


def at(leaf: Array, t: Array) -> Array:
    """Step t of `[S T ...]`."""
    return jax.lax.dynamic_index_in_dim(leaf, t, axis=1, keepdims=False)


def put(leaf: Array, t: Array, value: Array) -> Array:
    """`[S T ...]` with another step t."""
    return jax.lax.dynamic_update_index_in_dim(leaf, value.astype(leaf.dtype), t, axis=1)


def chosen(mask: Array | None, t: Array, new: Array, old: Array | float) -> Array:
    """The new `[S B H]` where `mask [T B]` has step t, else the old."""
    if mask is None:
        return new
    keep = jax.lax.dynamic_index_in_dim(mask, t, axis=0, keepdims=False)
    return jnp.where(keep[None, :, None], new, old)


def _blocks(length: int, used: Array) -> tuple[int, Array]:
    """Steps of a block, which divide the window, and the number of blocks that hold the used ones."""
    size = max(size for size in range(1, MOST_STEPS + 1) if length % size == 0)
    return size, (used + size - 1) // size


def _block(leaf: Array, turn: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(leaf, turn * size, size, axis=1)


def _affine_block(x: Array, kernel: Array, bias: Array) -> Array:
    out = jnp.einsum("stbx,sxy->stby", x.astype(kernel.dtype), kernel)
    return out + jnp.broadcast_to(bias.astype(kernel.dtype)[:, None, None, :], out.shape)


def _outer_block(left: Array, right: Array) -> Array:
    return jax.lax.dot_general(left, right, (((1, 2), (1, 2)), ((0,), (0,))), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _affine(x: Array, kernel: Array, bias: Array, used: Array) -> Array:
    size, turns = _blocks(x.shape[1], used)

    def write(turn: Array, out: Array) -> Array:
        made = _affine_block(_block(x, turn, size), kernel, bias)
        return jax.lax.dynamic_update_slice_in_dim(out, made, turn * size, axis=1)

    return jax.lax.fori_loop(0, turns, write, jnp.zeros((*x.shape[:3], kernel.shape[2]), kernel.dtype))


def _forward(x: Array, kernel: Array, bias: Array, used: Array):
    return _affine(x, kernel, bias, used), (x, kernel, bias, used)


def _backward(residuals, gradient):
    x, kernel, bias, used = residuals
    none = jnp.zeros((x.shape[0], x.shape[3]), kernel.dtype)
    d_x = _affine(gradient, jnp.swapaxes(kernel, 1, 2), none, used)
    d_kernel = outer(x.astype(kernel.dtype), gradient, used)
    d_bias = gradient.sum((1, 2), dtype=jnp.float32)
    return d_x.astype(x.dtype), d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype), None


_affine.defvjp(_forward, _backward)

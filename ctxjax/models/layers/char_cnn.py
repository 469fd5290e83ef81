"""The work of the character encoder, for the first `counts` words of each group alone, with its derivatives by hand.

How many words of a batch are distinct is known on the device only, and shapes are static. So the convolution runs in a
`while` loop over chunks of words that stops at the count, each chunk cut to the shortest of a few sizes that holds its
longest word; and the dense layers run on the smallest of a few numbers of rows, chosen by `switch`. Nothing is done for
the rest, forward or backward. Both are exact: windows that lie wholly in a word's padding are all alike, so one of them
stands for all in the maximum.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK = 128  # words a group and turn of the loop
SIZES = 16  # how many numbers of rows the dense layers are compiled for


def windows(chars: int, widest: int) -> tuple[int, ...]:
    """The numbers of characters that the convolution is compiled for, rising to all of them."""
    return tuple(size for size in (widest + 9, widest + 13, widest + 25) if size < chars) + (chars,)


def convolve(table: Array, kernels: tuple[Array, ...], chars: Int[Array, "G N C"]) -> Float[Array, "G N F"]:
    """Valid convolution of the embedded characters, then the maximum over positions; widths side by side."""
    embedded = table[chars]
    out = []
    for kernel in kernels:
        width, dim, features = kernel.shape
        count = chars.shape[-1] - width + 1
        patches = jnp.concatenate([embedded[:, :, k : k + count] for k in range(width)], axis=-1)
        out.append((patches @ kernel.reshape(width * dim, features)).max(axis=2))
    return jnp.concatenate(out, axis=-1)


def _chunked(chars, counts, lengths):
    """Fill up to whole chunks; the number of chunks in use."""
    size = min(CHUNK, chars.shape[1])
    extra = -chars.shape[1] % size
    chars = jnp.pad(chars, ((0, 0), (0, extra), (0, 0)), mode="edge")
    lengths = jnp.pad(lengths, ((0, 0), (0, extra)), mode="edge")
    return chars, lengths, size, (counts.max() + size - 1) // size


def _branch(lengths, start, size: int, sizes: tuple[int, ...], widest: int):
    """Which of the window sizes holds the chunk's longest word and one window of padding."""
    longest = jax.lax.dynamic_slice_in_dim(lengths, start, size, axis=1).max()
    return (longest + widest > jnp.array(sizes[:-1], jnp.int32)).sum()


@jax.custom_vjp
def convolve_first(
    table: Float[Array, "A E"],
    kernels: tuple[Float[Array, "_ E _"], ...],
    chars: Int[Array, "G N C"],
    counts: Int[Array, " G"],
    lengths: Int[Array, "G N"],
) -> Float[Array, "G N F"]:
    """`convolve` of the first `counts` words of each group, sorted by length; what is behind them is unspecified."""
    padded, lengths, size, turns = _chunked(chars, counts, lengths)
    features = sum(kernel.shape[-1] for kernel in kernels)
    widest = max(kernel.shape[0] for kernel in kernels)
    sizes = windows(chars.shape[-1], widest)

    def turn(index, out):
        start = index * size
        rows = jax.lax.dynamic_slice_in_dim(padded, start, size, axis=1)
        branches = [lambda rows, cut=cut: convolve(table, kernels, rows[..., :cut]) for cut in sizes]
        made = jax.lax.switch(_branch(lengths, start, size, sizes, widest), branches, rows)
        return jax.lax.dynamic_update_slice_in_dim(out, made, start, axis=1)

    out = jnp.zeros((*padded.shape[:2], features), table.dtype)
    return jax.lax.fori_loop(0, turns, turn, out)[:, : chars.shape[1]]


def _convolve_forward(table, kernels, chars, counts, lengths):
    return convolve_first(table, kernels, chars, counts, lengths), (table, kernels, chars, counts, lengths)


def _convolve_backward(kept, gradient):
    table, kernels, chars, counts, lengths = kept
    padded, lengths, size, turns = _chunked(chars, counts, lengths)
    gradient = jnp.pad(gradient, ((0, 0), (0, padded.shape[1] - chars.shape[1]), (0, 0)))
    widest = max(kernel.shape[0] for kernel in kernels)
    sizes = windows(chars.shape[-1], widest)

    def turn(index, sums):
        start = index * size
        rows = jax.lax.dynamic_slice_in_dim(padded, start, size, axis=1)
        part = jax.lax.dynamic_slice_in_dim(gradient, start, size, axis=1)

        def derive(rows, part, cut):
            pull = jax.vjp(lambda table, kernels: convolve(table, kernels, rows[..., :cut]), table, kernels)[1]
            return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), pull(part))

        branches = [functools.partial(derive, cut=cut) for cut in sizes]
        more = jax.lax.switch(_branch(lengths, start, size, sizes, widest), branches, rows, part)
        return jax.tree.map(jnp.add, sums, more)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), (table, kernels))
    sums = jax.lax.fori_loop(0, turns, turn, zeros)
    d_table, d_kernels = jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), sums, (table, kernels))
    return d_table, d_kernels, None, None, None


convolve_first.defvjp(_convolve_forward, _convolve_backward)


def _on_first(function, count, size: int, rows: tuple[Array, ...], constants: tuple[Array, ...]):
    """`function(rows[:, :n], constants)` for the smallest compiled n that is at least `count`; its rows filled with 0.

    `function` gives (row outputs `[G n ...]`, other outputs).
    """
    step = max(8, -(-size // SIZES))
    sizes = [*range(step, size, step), size]

    def branch(rows, constants, n):
        made, other = function(tuple(leaf[:, :n] for leaf in rows), constants)
        fill = lambda leaf: jnp.pad(leaf, ((0, 0), (0, size - n)) + ((0, 0),) * (leaf.ndim - 2))
        return jax.tree.map(fill, made), other

    index = jnp.minimum((count + step - 1) // step - 1, len(sizes) - 1)
    branches = [functools.partial(branch, n=n) for n in sizes]
    return jax.lax.switch(index, branches, rows, constants)


def _matmul(x: Array, kernel: Array) -> Array:
    return jax.lax.dot_general(x, kernel, (((2,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def _matmul_t(x: Array, kernel: Array) -> Array:
    return jax.lax.dot_general(x, kernel, (((2,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _outer(x: Array, y: Array) -> Array:
    return jax.lax.dot_general(x, y, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32)


def _row(bias: Array) -> Array:
    return bias.astype(jnp.float32)[None, None, :]


@jax.custom_vjp
def affine_first(
    x: Float[Array, "G N F"], kernel: Float[Array, "F P"], bias: Float[Array, " P"], counts: Int[Array, " G"]
) -> Float[Array, "G N P"]:
    """`x @ kernel + bias` for the first `counts` rows of each group; 0 or unused values behind them."""

    def function(rows, constants):
        kernel, bias = constants
        return ((_matmul(rows[0], kernel) + _row(bias)).astype(x.dtype),), ()

    return _on_first(function, counts.max(), x.shape[1], (x,), (kernel, bias))[0][0]


def _affine_forward(x, kernel, bias, counts):
    return affine_first(x, kernel, bias, counts), (x, kernel, bias, counts)


def _affine_backward(kept, gradient):
    x, kernel, bias, counts = kept

    def function(rows, constants):
        x, gradient = rows
        return (_matmul_t(gradient, constants[0]).astype(x.dtype),), (_outer(x, gradient), gradient.sum((0, 1)))

    (d_x,), (d_kernel, d_bias) = _on_first(function, counts.max(), x.shape[1], (x, gradient), (kernel,))
    return d_x, d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype), None


affine_first.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def highway_first(
    x: Float[Array, "G N F"],
    weights: tuple[Float[Array, "F F"], Float[Array, " F"], Float[Array, "F F"], Float[Array, " F"]],
    counts: Int[Array, " G"],
) -> Float[Array, "G N F"]:
    """`g relu(x W + b) + (1 - g) x`, `g = sigmoid(x V + c)`, for the first `counts` rows of each group.

    Args:
      weights: V, c, W, b. The original calls g the carry gate, although it carries the transformed part.
    """
    return _highway_forward(x, weights, counts)[0]


def _highway_forward(x, weights, counts):
    def function(rows, constants):
        (x,) = rows
        carry_kernel, carry_bias, kernel, bias = constants
        gate = jax.nn.sigmoid(_matmul(x, carry_kernel) + _row(carry_bias))
        made = jax.nn.relu(_matmul(x, kernel) + _row(bias))
        out = gate * made + (1.0 - gate) * x.astype(jnp.float32)
        return (out.astype(x.dtype), gate.astype(x.dtype), made.astype(x.dtype)), ()

    (out, gate, made), _ = _on_first(function, counts.max(), x.shape[1], (x,), weights)
    return out, (x, gate, made, weights, counts)


def _highway_backward(kept, gradient):
    x, gate, made, weights, counts = kept

    def function(rows, constants):
        x, gate, made, gradient = rows
        carry_kernel, kernel = constants
        g, m, d = (leaf.astype(jnp.float32) for leaf in (gate, made, gradient))
        d_gate = (d * (m - x.astype(jnp.float32)) * g * (1.0 - g)).astype(x.dtype)
        d_made = (d * g * (m > 0)).astype(x.dtype)
        d_x = d * (1.0 - g) + _matmul_t(d_gate, carry_kernel) + _matmul_t(d_made, kernel)
        others = (_outer(x, d_gate), d_gate.sum((0, 1)), _outer(x, d_made), d_made.sum((0, 1)))
        return (d_x.astype(x.dtype),), others

    rows = (x, gate, made, gradient)
    (d_x,), others = _on_first(function, counts.max(), x.shape[1], rows, (weights[0], weights[2]))
    return d_x, tuple(other.astype(weight.dtype) for other, weight in zip(others, weights)), None


highway_first.defvjp(_highway_forward, _highway_backward)

"""The work of the character encoder, for the first `counts` words of each group alone, with its derivatives by hand.

How many words of a batch are distinct, and how long they are, is known on the device only, and shapes are static. So
the convolution is a loop over chunks of words that stops at the count, and within a chunk over blocks of positions that
stops at its longest word; the dense layers run on the smallest of a few numbers of rows, chosen by `switch`. Nothing is
done for the rest, forward or backward. All of it is exact: windows that lie wholly in a word's padding are all alike,
so one of them stands for all in the maximum.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK = 128  # words of a group in one turn of the loop
BLOCK = 6  # positions in one turn of the loop within
SIZES = (3, 5, 6, 7, 8, 9, 11, 16)  # the dense layers are compiled for these sixteenths of all rows


@jax.custom_vjp
def _product(rows: Array, kernel: Array) -> Array:
    """`rows @ kernel`; by itself JAX would form the kernel's gradient transposed, and copy the larger factor for it."""
    return rows @ kernel


def _product_backward(kept, gradient):
    rows, kernel = kept
    d_rows = jax.lax.dot_general(gradient, kernel, (((1,), (1,)), ((), ())))
    return d_rows, jax.lax.dot_general(rows, gradient, (((0,), (0,)), ((), ())))


_product.defvjp(lambda rows, kernel: (_product(rows, kernel), (rows, kernel)), _product_backward)


def convolve(
    embedded: Float[Array, "G N C E"], kernels: tuple[Array, ...], start: Array | int = 0, block: int | None = None
) -> Float[Array, "G N F"]:
    """Valid convolution of embedded characters, then the maximum over positions; the widths side by side.

    Args:
      start, block: only the windows at `[start, start + block)`. At the end of the word they are moved back to the last
        valid ones: looking at a window twice changes no maximum.
    """
    groups, words, size, dim = embedded.shape
    out = []
    for kernel in kernels:
        width, _, features = kernel.shape
        count = min(block or size, size - width + 1)
        part = jax.lax.dynamic_slice_in_dim(embedded, start, count + width - 1, axis=2)
        patches = jnp.concatenate([part[:, :, k : k + count] for k in range(width)], axis=-1)
        made = _product(patches.reshape(-1, width * dim), kernel.reshape(width * dim, features))
        out.append(made.reshape(groups, words, count, features).max(axis=2))
    return jnp.concatenate(out, axis=-1)


def _chunks(rows: tuple[Array, ...]) -> tuple[tuple[Array, ...], int]:
    """Fill `[G N ...]` up to whole chunks with zeros: an empty word, and no gradient; the size of a chunk."""
    size = min(CHUNK, rows[0].shape[1])
    extra = -rows[0].shape[1] % size
    fill = lambda leaf: jnp.pad(leaf, ((0, 0), (0, extra)) + ((0, 0),) * (leaf.ndim - 2))
    return tuple(fill(leaf) for leaf in rows), size


def _take(leaf: Array, start: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(leaf, start, size, axis=1)


def _put(leaf: Array, part: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(leaf, part, start, axis=1)


def _blocks(lengths: Int[Array, "G N"]) -> Array:
    """Blocks that hold every window which starts within the longest word, and one in its padding."""
    return lengths.max() // BLOCK + 1


@jax.custom_vjp
def convolve_first(
    table: Float[Array, "A E"],
    kernels: tuple[Float[Array, "_ E _"], ...],
    chars: Int[Array, "G N C"],
    counts: Int[Array, " G"],
    lengths: Int[Array, "G N"],
) -> Float[Array, "G N F"]:
    """`convolve(table[chars], kernels)` of the first `counts` words of each group; what is behind them is unspecified.

    Args:
      lengths: characters before the padding of each word. Words sorted by length make it fast.
    """
    return _convolve_forward(table, kernels, chars, counts, lengths)[0]


def _convolve_forward(table, kernels, chars, counts, lengths):
    (rows, sizes), size = _chunks((chars, lengths))
    features = sum(kernel.shape[-1] for kernel in kernels)

    def chunk(index, state):
        start = index * size
        embedded = table[_take(rows, start, size)]

        def block(index, state):
            highest, where = state
            made = convolve(embedded, kernels, index * BLOCK, BLOCK)
            higher = made > highest
            return jnp.where(higher, made, highest), jnp.where(higher, index.astype(jnp.int8), where)

        shape = (*embedded.shape[:2], features)
        first = (jnp.full(shape, -jnp.inf, table.dtype), jnp.zeros(shape, jnp.int8))
        parts = jax.lax.fori_loop(0, _blocks(_take(sizes, start, size)), block, first)
        return tuple(_put(leaf, part, start) for leaf, part in zip(state, parts))

    shape = (*rows.shape[:2], features)
    first = (jnp.zeros(shape, table.dtype), jnp.zeros(shape, jnp.int8))
    out, where = jax.lax.fori_loop(0, -(-counts.max() // size), chunk, first)
    return out[:, : chars.shape[1]], (table, kernels, chars, counts, lengths, where)


def _convolve_backward(kept, gradient):
    """Each output's gradient goes to the window of the highest value within the block where the maximum was found."""
    table, kernels, chars, counts, lengths, where = kept
    (rows, sizes, gradient), size = _chunks((chars, lengths, gradient))

    def chunk(index, sums):
        d_table, d_kernels = sums
        start = index * size
        ids, gradients, places = (_take(leaf, start, size) for leaf in (rows, gradient, where))
        embedded = table[ids]

        def block(index, sums):
            pull = jax.vjp(lambda *args: convolve(*args, index * BLOCK, BLOCK), embedded, kernels)[1]
            mine = jnp.where(places == index.astype(jnp.int8), gradients, jnp.zeros((), gradients.dtype))
            return jax.tree.map(lambda total, more: total + more.astype(jnp.float32), sums, pull(mine))

        zeros = (jnp.zeros(embedded.shape, jnp.float32), d_kernels)
        d_embedded, d_kernels = jax.lax.fori_loop(0, _blocks(_take(sizes, start, size)), block, zeros)
        return d_table.at[ids].add(d_embedded), d_kernels

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), (table, kernels))
    sums = jax.lax.fori_loop(0, -(-counts.max() // size), chunk, zeros)
    d_table, d_kernels = jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), sums, (table, kernels))
    return d_table, d_kernels, None, None, None


convolve_first.defvjp(_convolve_forward, _convolve_backward)


def _on_first(function, count, size: int, rows: tuple[Array, ...], constants: tuple[Array, ...]):
    """`function(rows[:, :n], constants)` for the smallest compiled n that is at least `count`; its rows filled with 0.

    `function` gives (row outputs `[G n ...]`, other outputs).
    """
    sizes = sorted({-(-size * part // 16) for part in SIZES})

    def branch(rows, constants, n):
        made, other = function(tuple(leaf[:, :n] for leaf in rows), constants)
        fill = lambda leaf: jnp.pad(leaf, ((0, 0), (0, size - n)) + ((0, 0),) * (leaf.ndim - 2))
        return jax.tree.map(fill, made), other

    index = (count > jnp.array(sizes[:-1], jnp.int32)).sum()
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

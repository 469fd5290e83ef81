"""Random draws that are functions of a key and of counters, never of what was drawn before.

So the mask of an example, or the cut of a chunk, does not depend on order, batch, worker or resume. The generator is
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) used as a hash: the same bits
on every machine and under every NumPy version, which `numpy.random.Generator` does not promise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash
from jaxtyping import Float, Int, Integer, UInt64

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_FEISTEL_ROUNDS = 6


def key(*parts: Any) -> int:
    """A 64-bit key for one purpose, from names and numbers: `key("mask", seed, epoch)`."""
    return xxhash.xxh3_64_intdigest("/".join(str(part) for part in parts).encode())


def fold(key: int, counter: int) -> int:
    """The key of item number `counter`: one output of the generator that `key` seeds."""
    x = (key + (counter + 1) * _GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)


Key = int | UInt64[np.ndarray, "..."]


def bits(key: Key, counters: Integer[np.ndarray, ...]) -> UInt64[np.ndarray, ...]:
    """`fold(key, counter)` for many counters and perhaps many keys, broadcast; distinct counters give distinct bits."""
    x = counters.astype(np.uint64) * np.uint64(_GOLDEN)
    x = x + (np.uint64((key + _GOLDEN) & _MASK) if isinstance(key, int) else key + np.uint64(_GOLDEN))
    x ^= x >> np.uint64(30)
    x *= np.uint64(_M1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_M2)
    x ^= x >> np.uint64(31)
    return x


def unit(key: Key, counters: Integer[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Uniform in [0, 1), with 53 bits."""
    return (bits(key, counters) >> np.uint64(11)) * 2.0**-53


def below(key: Key, counters: Integer[np.ndarray, ...], limit: Integer[np.ndarray, ...] | int) -> Int[np.ndarray, ...]:
    """Uniform integers in [0, limit)."""
    return (unit(key, counters) * limit).astype(np.int64)


def coins(key: int, counters: Int[np.ndarray, " N"], flips: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Heads among `flips[i]` fair coins (a binomial draw), 64 coins to a word."""
    heads, left = np.zeros(len(flips), np.int64), flips.astype(np.int64)
    word = 0
    while len(active := np.flatnonzero(left > 0)):
        drawn = bits(fold(key, word), counters[active])
        drawn >>= (64 - np.minimum(left[active], 64)).astype(np.uint64)
        heads[active] += np.bitwise_count(drawn)
        left[active] -= 64
        word += 1
    return heads


def permute(key: int, places: Integer[np.ndarray, " N"], count: int) -> Int[np.ndarray, " N"]:
    """What stands at some places of a keyed permutation of `range(count)`, without making the permutation.

    A Feistel network on the smallest power of two that holds `count`, walked until it lands inside.
    """
    width = max(2, (count - 1).bit_length())
    low = np.uint64(width // 2)
    high_mask, low_mask = np.uint64((1 << (width - int(low))) - 1), np.uint64((1 << int(low)) - 1)
    landed, pending, x = np.empty(len(places), np.int64), np.arange(len(places)), places.astype(np.uint64)
    while len(pending):
        a, b = x >> low, x & low_mask
        for turn in range(0, _FEISTEL_ROUNDS, 2):
            a ^= bits(key + turn, b) & high_mask
            b ^= bits(key + turn + 1, a) & low_mask
        x = a << low | b
        inside = x < count
        landed[pending[inside]] = x[inside]
        pending, x = pending[~inside], x[~inside]
    return landed


def permutation(key: int, count: int) -> Int[np.ndarray, " count"]:
    """A keyed permutation of `range(count)`, whole."""
    return np.argsort(bits(key, np.arange(count)))


def in_passes(name: str, seed: int, elements: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Which of `count` things the elements of an endless order are: all of them in every pass, each time shuffled."""
    numbers, places = np.divmod(elements, count)
    chosen = np.empty(len(elements), np.int64)
    for number in np.unique(numbers).tolist():
        here = numbers == number
        chosen[here] = permute(key(name, seed, number), places[here], count)
    return chosen

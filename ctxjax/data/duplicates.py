"""Near-duplicate documents: MinHash signatures, and which documents a corpus does without.

A document is the set of its runs of five words. Its signature is 14 bands of 8 minima, and two documents are near
duplicates where a band is equal: three of four pairs with a Jaccard similarity of 0.75 are found, nine of ten with 0.8,
one of a hundred with 0.4. Left out is every document that has a near duplicate with a smaller key, so of a group the
one with the smallest key stays, in whatever order they come and wherever they are; held-out documents have the smallest
keys of all.

References: Broder 1997, "On the resemblance and containment of documents"; Penedo et al. 2024, "The FineWeb Datasets",
section 3.4, for the numbers.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from jaxtyping import UInt64

from ctxjax.config import ConfigError

KINDS = ("keep", "exact", "near")
BANDS, ROWS, RUN = 14, 8, 5
_WORD = re.compile(r"\w+")


def bands(text: str) -> UInt64[np.ndarray, " bands"]:
    """A digest of each band of a document's signature."""
    words = _WORD.findall(text.lower())
    runs = [" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))]
    made = _maker()(num_perm=BANDS * ROWS, seed=1, hashfunc=_hash, permutations=_permutations(), scheme="affine32")
    made.update_batch(set(runs))
    minima = np.ascontiguousarray(made.hashvalues, "<u8").reshape(BANDS, ROWS)
    return np.array([xxhash.xxh3_64_intdigest(band.tobytes()) for band in minima], np.uint64)


def _hash(run: str) -> int:
    return xxhash.xxh32_intdigest(run.encode("utf-8", "surrogatepass"))


@functools.cache
def _maker() -> Any:
    try:
        from datasketch import MinHash
    except ImportError:
        raise ConfigError("--duplicates near needs datasketch; pip install 'ctxjax[dedup]'") from None
    return MinHash


@functools.cache
def _permutations() -> Any:
    return _maker()(num_perm=BANDS * ROWS, seed=1, scheme="affine32").permutations


def check() -> None:
    """Raises ConfigError where the library is not there."""
    _maker()


def later(files: Sequence[pathlib.Path]) -> UInt64[np.ndarray, " n"]:
    """The keys of the documents that have a near duplicate with a smaller key, in order.

    One band is held at a time: about forty bytes for every document.

    Args:
      files: of `save`.
    """
    found = [np.load(file, mmap_mode="r") for file in files]
    keys = np.concatenate([part[:, 0] for part in found]) if found else np.zeros(0, np.uint64)
    out: list[np.ndarray] = [np.zeros(0, np.uint64)]
    for band in range(1, BANDS + 1):
        digests = np.concatenate([part[:, band] for part in found])
        order = np.lexsort((keys, digests))
        sorted_keys, sorted_digests = keys[order], digests[order]
        starts = np.flatnonzero(np.concatenate([[True], sorted_digests[1:] != sorted_digests[:-1]])[: len(order)])
        least = np.repeat(sorted_keys[starts], np.diff(np.append(starts, len(order))))
        out.append(np.unique(sorted_keys[sorted_keys != least]))
    return np.unique(np.concatenate(out))

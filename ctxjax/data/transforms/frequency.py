"""What word2vec makes of word counts: chances to be kept, a law of negatives, a Huffman tree.

Reference: Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality",
sections 2.1 to 2.3; tmikolov/word2vec word2vec.c.
"""

from __future__ import annotations

import heapq
import pathlib

import numpy as np
from jaxtyping import Float, Int

from ctxjax.data.arrays import ArrayWriter
from ctxjax.data.corpus import Corpus

_BLOCK = 1 << 20  # tokens counted at a time
LONGEST_CODE = 40  # as in the original


def write_counts(folder: pathlib.Path, *, corpus: Corpus) -> None:
    """Build `counts.npy`: how often each word stands in a split."""
    import tqdm

    counts = np.zeros(corpus.manifest["tokenizer"]["pieces"], np.int64)
    with tqdm.tqdm(total=corpus.num_tokens, desc="counting words", unit=" words", delay=3, disable=None) as bar:
        for start in range(0, corpus.num_tokens, _BLOCK):
            stop = min(start + _BLOCK, corpus.num_tokens)
            counts += np.bincount(corpus.read_tokens(start, stop)[0], minlength=len(counts))
            bar.update(stop - start)
    writer = ArrayWriter(folder / "counts.npy", "<i8")
    writer.append(counts)
    writer.close()


def keep_chances(counts: Int[np.ndarray, " V"], sample: float) -> Float[np.ndarray, " V"]:
    """The chance of each occurrence of a word to be kept: `(sqrt(f / t) + 1) t / f`, at most 1, t = `sample`.

    The paper's formula is `sqrt(t / f)`; this is the released code's. A sample of 0 keeps everything; a count of 0 (the
    marks of a vocabulary, which are no words) nothing.
    """
    total = max(1, counts.sum())
    if sample <= 0:
        return (counts > 0).astype(np.float64)
    ratio = sample * total / np.maximum(counts, 1)
    return np.where(counts > 0, np.minimum(1.0, np.sqrt(ratio) + ratio), 0.0)


def noise_law(counts: Int[np.ndarray, " V"], exponent: float) -> Float[np.ndarray, " V"]:
    """Cumulative chances of the words as negatives, proportional to `count ** exponent`."""
    mass = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** exponent, 0.0)
    law = np.cumsum(mass)
    return law / law[-1]


def huffman(counts: Int[np.ndarray, " V"]) -> tuple[Int[np.ndarray, "V L"], Int[np.ndarray, "V L"]]:
    """The inner nodes from the root to each word, and the turn taken at each; -1 behind the end of a path.

    Node numbers count from the leaves' parents up, the root being the last, as in the original; words of count 0 have
    no path. Of two nodes the rarer is turn 0, and of two equally rare ones a word comes before an inner node.

    Raises:
      ValueError: a path of more than 40 turns, more than the original can hold.
    """
    words = np.flatnonzero(counts > 0)
    heap = [(int(counts[word]), 0, -int(word), int(word)) for word in words]  # of equals the later word first
    heapq.heapify(heap)
    parent, turn = np.full((2, 2 * len(counts)), -1, np.int64)
    made = 0
    while len(heap) > 1:
        low, high = heapq.heappop(heap), heapq.heappop(heap)
        node = len(counts) + made
        for step, (_, _, _, child) in enumerate((low, high)):
            parent[child], turn[child] = node, step
        heapq.heappush(heap, (low[0] + high[0], 1, made, node))
        made += 1
    paths, longest = {}, 1
    for word in words.tolist():
        steps, node = [], word
        while parent[node] >= 0:
            steps.append((int(parent[node]) - len(counts), int(turn[node])))
            node = int(parent[node])
        paths[word] = steps[::-1]
        longest = max(longest, len(steps))
    if longest > LONGEST_CODE:
        raise ValueError(f"a Huffman code of {longest} turns is longer than {LONGEST_CODE}")
    nodes, turns = np.full((2, len(counts), longest), -1, np.int32)
    for word, steps in paths.items():
        for place, (node, step) in enumerate(steps):
            nodes[word, place], turns[word, place] = node, step
    return nodes, turns


def write_tree(folder: pathlib.Path, *, counts: Int[np.ndarray, " V"]) -> None:
    """Build `nodes.npy` and `turns.npy`, flat."""
    for name, values in zip(("nodes", "turns"), huffman(counts)):
        writer = ArrayWriter(folder / f"{name}.npy", "<i4")
        writer.append(values.reshape(-1))
        writer.close()

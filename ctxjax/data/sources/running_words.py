"""Rows for word vectors: stretches of running words after sub-sampling, with windows and negatives drawn beside them.

Frequent words are dropped *before* windows are laid, so windows reach further than their size in the text. Words
outside the vocabulary are dropped too. Reference: Mikolov et al. 2013, section 2.3; tmikolov/word2vec word2vec.c.
"""

from __future__ import annotations

import functools
import math
import os
import pathlib
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.arrays import ArrayWriter
from ctxjax.data.corpus import Corpus
from ctxjax.data.corpus_source import CorpusSource
from ctxjax.data.index import open_index
from ctxjax.data.transforms import frequency
from ctxjax.text.subwords import ngram_hashes

_VERSION = 1  # of the indexes; part of their keys
_CHUNK = 1024  # words of the text in which kept ones are counted together
_MARKS = 3  # <S>, </S> and <UNK> are neither read nor predicted nor drawn


class Source(CorpusSource):
    """Stretches of a prepared corpus of words.

    Row (T = `length`, K = `block`, N = `negatives`): inputs {tokens [T]}, with `buckets` {subwords [T, `max_subwords`]}
    too, rows of their n-grams, -1 behind the last; targets [T], the same words, to be predicted; weights [T], 0 for the
    few places behind a row's words; sentences [T], which sentence of the row a word is of; reach [T, `window`], 1 at
    w - 1 where a word's window reaches w places; negatives [T / K, N], words drawn for each block of K. With `tree` in
    their place nodes and turns [T, L], each target's path in the Huffman tree, -1 behind it.

    Every pass sub-samples anew and gives its rows in another order. Word counts are those of the split "train".
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 1024,
        window: int = 5,
        dynamic: bool = True,
        sample: float = 1e-3,
        negatives: int = 32,
        block: int = 64,
        exponent: float = 0.75,
        tree: bool = False,
        buckets: int = 0,
        shortest: int = 3,
        longest: int = 6,
        max_subwords: int = 40,
        verify: bool = False,
    ):
        """Open the corpus; indexes are built when they are first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote, with a word vocabulary.
          split: "train" or "heldout".
          length: words of a row.
          window: the widest window, in words to either side.
          dynamic: each word's window is drawn from 1 to `window`; otherwise all are the widest.
          sample: threshold of sub-sampling (published: 1e-3; fastText 1e-4); 0 keeps every word.
          negatives: words drawn for each block, which its words share.
          block: words that share negatives; divides `length`.
          exponent: of the counts in the law of negatives (published: 0.75; fastText 0.5).
          tree: give paths in the Huffman tree instead of negatives.
          buckets: rows for n-grams of characters behind those of the words, as in fastText; 0 for none.
          shortest, longest: characters of an n-gram.
          max_subwords: n-grams of a word that has more are left out behind so many; 40 hold those of 11 characters.
          verify: compare the digests of the shards before use, and not only of each part when it is read.

        Raises:
          ConfigError: no such corpus or split, one that was not made for words, or an impossible field.
        """
        if min(length, window, negatives, block) < 1 or sample < 0:
            raise ConfigError("config.source needs length, window, negatives and block >= 1, and sample >= 0")
        if length % block or block < window:
            raise ConfigError(
                f"config.source.block={block} must divide config.source.length={length} and be at least "
                f"config.source.window={window}"
            )
        super().__init__(corpus, split, verify, "words")
        self.length, self.window, self.dynamic, self.sample = length, window, dynamic, sample
        self.negatives, self.block, self.exponent, self.tree = negatives, block, exponent, tree
        self.buckets, self.shortest, self.longest, self.max_subwords = buckets, shortest, longest, max_subwords

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        names = ("length", "window", "dynamic", "sample", "negatives", "block", "exponent", "tree")
        if self.buckets:
            names += ("buckets", "shortest", "longest", "max_subwords")
        return self.fingerprint_of(*names)

    @property
    def tokens_per_row(self) -> int:
        """Words of a row on average, after sub-sampling."""
        return max(1, round(self._expected / self.rows_per_pass))

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, " V"]:
        """How often each word stands in the split "train"; 0 for the marks."""
        corpus = self.corpus if self.corpus.split == "train" else Corpus(self.corpus.folder, "train")
        key = {"index": "counts", "version": _VERSION, "corpus": corpus.fingerprint}
        build = functools.partial(frequency.write_counts, corpus=corpus)
        counts = np.array(open_index(corpus.folder, key, build)["counts"])
        counts[:_MARKS] = 0
        return counts

    @functools.cached_property
    def _chances(self) -> np.ndarray:
        return frequency.keep_chances(self.counts, self.sample)

    @functools.cached_property
    def _law(self) -> np.ndarray:
        return frequency.noise_law(self.counts, self.exponent)

    @functools.cached_property
    def _tree(self) -> tuple[np.ndarray, np.ndarray]:
        key = {"index": "tree", "version": _VERSION, "counts": self.counts.tolist()}
        found = open_index(self.corpus.folder, key, functools.partial(frequency.write_tree, counts=self.counts))
        nodes, turns = (np.array(found[name]).reshape(self.vocab_size, -1) for name in ("nodes", "turns"))
        return nodes, turns

    @functools.cached_property
    def _subwords(self) -> np.ndarray:
        """The rows of the n-grams of each word, `[V, S]`."""
        options = {name: getattr(self, name) for name in ("buckets", "shortest", "longest", "max_subwords")}
        key = {"index": "subwords", "version": _VERSION, "tokenizer": self.corpus.fingerprint["tokenizer"], **options}
        build = functools.partial(_write_subwords, tokenizer=self.tokenizer, **options)
        return open_index(self.corpus.folder, key, build)["subwords"].reshape(-1, self.max_subwords)

    @functools.cached_property
    def _expected(self) -> float:
        """Words of a pass after sub-sampling, in expectation."""
        counts = self.counts
        share = self.corpus.num_tokens / max(1, self.corpus.manifest["splits"]["train"]["tokens"])
        return float((counts * self._chances).sum()) * share

    @functools.cached_property
    def rows_per_pass(self) -> int:
        """A little more than the expected words need, so that no pass has more words than its rows hold."""
        expected = self._expected
        return max(1, math.ceil((expected * 1.001 + 5.0 * math.sqrt(expected)) / self.length))

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every row was read once; what is left of a pass is in the first batch of the next."""
        return max(1, self.rows_per_pass // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        shape = (len(elements), self.length)
        tokens, sentences = np.zeros((2, *shape), np.int32)
        weights, windows = np.zeros(shape, np.float32), np.ones(shape, np.int64)
        passes, places = np.divmod(elements, self.rows_per_pass)
        for number in np.unique(passes).tolist():
            here = np.flatnonzero(passes == number)
            order = draws.permute(draws.key("rows", seed, number), places[here], self.rows_per_pass)
            for row, place in zip(here.tolist(), order.tolist()):
                words, at, of = self._read(seed, number, place)
                count = len(words)
                tokens[row, :count], weights[row, :count] = words, 1.0
                sentences[row, :count] = of - (of[0] if count else 0)
                if self.dynamic:
                    windows[row, :count] += draws.below(draws.key("windows", seed, number), at, self.window)
        if not self.dynamic:
            windows[:] = self.window
        inputs = {"tokens": tokens} | ({"subwords": self._subwords[tokens]} if self.buckets else {})
        batch = {"inputs": inputs, "targets": tokens.copy(), "weights": weights}
        batch |= {"sentences": sentences, "reach": (windows[..., None] > np.arange(self.window)).astype(np.int32)}
        if self.tree:
            nodes, turns = self._tree
            return batch | {"nodes": nodes[tokens], "turns": turns[tokens]}
        shape = (len(elements), self.length // self.block, self.negatives)
        counters = elements.astype(np.int64)[:, None, None] * math.prod(shape[1:])
        counters = counters + np.arange(math.prod(shape[1:])).reshape(1, *shape[1:])
        drawn = self._law.searchsorted(draws.unit(draws.key("negatives", seed), counters), "right")
        return batch | {"negatives": np.minimum(drawn, self.vocab_size - 1).astype(np.int32)}

    def _read(self, seed: int, number: int, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The words of a row, where they stand in the split, and their sentences' numbers."""
        kept = self._pass(seed, number)
        first, last = (int(kept[-1]) * place // self.rows_per_pass for place in (row, row + 1))
        last = min(last, first + self.length)
        low, high = (int(kept.searchsorted(first, "right")) - 1, int(kept.searchsorted(last, "left")))
        if last <= first:
            return np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64)
        tokens, at = self._kept(seed, number, low * _CHUNK, min(high * _CHUNK, self.corpus.num_tokens))
        chosen = slice(first - int(kept[low]), last - int(kept[low]))
        at = at[chosen]
        return tokens[chosen], at, self.corpus.sentence_tokens.searchsorted(at, "right")

    def _kept(self, seed: int, number: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The words of a stretch of the split that a pass keeps, and where they stand."""
        tokens, _ = self.corpus.read_tokens(start, stop)
        at = np.arange(start, stop)
        keep = draws.unit(draws.key("keep", seed, number), at) < self._chances[tokens]
        return tokens[keep], at[keep]

    def _pass(self, seed: int, number: int) -> Int[np.ndarray, " C1"]:
        """How many words a pass keeps before each chunk of the split; the last two passes stay open."""

        def build() -> np.ndarray:
            key = {"index": "running_words", "version": _VERSION, "corpus": self.corpus.fingerprint}
            key |= {"counts": draws.key(*self.counts.tolist()), "sample": self.sample}
            key |= {"seed": int(seed), "pass_number": number}
            write = functools.partial(self._write_kept, seed=int(seed), number=number)
            return np.array(open_index(self.corpus.folder, key, write)["kept"])

        return self.of_pass((seed, number), build)

    def _write_kept(self, folder: pathlib.Path, *, seed: int, number: int) -> None:
        """Build `kept.npy`."""
        import tqdm

        writer, total, block = ArrayWriter(folder / "kept.npy", "<i8"), self.corpus.num_tokens, _CHUNK * 512
        writer.append(np.zeros(1, np.int64))
        before = 0
        with tqdm.tqdm(total=total, desc=f"sub-sampling, pass {number}", unit=" words", delay=3, disable=None) as bar:
            for start in range(0, total, block):
                stop = min(start + block, total)
                _, at = self._kept(seed, number, start, stop)
                counts = np.bincount((at - start) // _CHUNK, minlength=math.ceil((stop - start) / _CHUNK))
                writer.append(before + np.cumsum(counts))
                before += int(counts.sum())
                bar.update(stop - start)
        writer.close()


def _write_subwords(
    folder: pathlib.Path, *, tokenizer: Any, buckets: int, shortest: int, longest: int, max_subwords: int
) -> None:
    """Build `subwords.npy`, flat."""
    table = np.full((len(tokenizer), max_subwords), -1, np.int32)
    for word, piece in enumerate(tokenizer.pieces[_MARKS:], _MARKS):
        hashes = ngram_hashes(piece, shortest, longest)[:max_subwords]
        table[word, : len(hashes)] = [len(tokenizer) + value % buckets for value in hashes]
    writer = ArrayWriter(folder / "subwords.npy", "<i4")
    writer.append(table.reshape(-1))
    writer.close()


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("words"), length=32, block=16, negatives=8, sample=0.02)

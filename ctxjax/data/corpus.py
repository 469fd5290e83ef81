"""A prepared corpus: tokenised documents with sentence boundaries, written once and read by every model's source.

    DIR/manifest.json                            counts, what was dropped, a digest of every file; written last
    DIR/tokenizer/{tokenizer.json,vocab.txt}     with merges.txt and vocab.json for BPE
    DIR/{split}-00000-of-00004.array_record      the shards of the splits "train" and "heldout"
    DIR/{split}.sentences.npy                    int64 [sentences + 1], cumulative tokens
    DIR/{split}.documents.npy                    int64 [documents + 1], cumulative sentences
    DIR/{split}.sections.npy                     int64 [records + 1], cumulative sentences

A record is a *section* of a document (see `shards.py`). The side arrays are memory-mapped, so any span of tokens is
found by two binary searches and no scan.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from ctxjax.config import ConfigError, fingerprint
from ctxjax.data.arrays import ArrayWriter, file_digest, replace
from ctxjax.data.shards import (
    SECTION_TOKENS,
    SUFFIX,
    CorpusError,
    Section,
    corrupt_shard,
    decode_section,
    encode_section,
    open_shard,
    read_shard,
    sections,
    shard_name,
    write_shard,
)

__all__ = [
    "SECTION_TOKENS",
    "Corpus",
    "CorpusError",
    "Section",
    "ShardCounts",
    "count_shard",
    "decode_section",
    "encode_section",
    "finish",
    "read_manifest",
    "read_shard",
    "sections",
    "shard_name",
    "write_shard",
]

FORMAT = 1
MANIFEST = "manifest.json"
_OPEN_SHARDS = 128  # file descriptors held at a time


@runtime_checkable
class _Tokenizer(Protocol):
    kind: str

    def __len__(self) -> int: ...
    def digest(self) -> str: ...
    def save(self, folder: Any) -> Any: ...


class ShardCounts(NamedTuple):
    """What some consecutive records of a shard add to the side arrays, counted from the first of them.

    Attributes:
      lengths: tokens of each sentence.
      documents: the first sentence of each document that begins here.
      sections: the first sentence of each record.
    """

    lengths: Integer[np.ndarray, " sentences"]
    documents: Integer[np.ndarray, " documents"]
    sections: Integer[np.ndarray, " records"]


def count_shard(path: str | os.PathLike[str], at_once: int = 64) -> Iterator[ShardCounts]:
    """Read every section of a shard once, in order, and count so many at a time."""
    document = None
    found = read_shard(path)
    while part := list(itertools.islice(found, at_once)):
        sections = np.cumsum([0, *(len(section.lengths) for section in part)])[:-1]
        before = [document, *(section.document for section in part)]
        new = [section.document != last for section, last in zip(part, before)]  # a document never spans two shards
        document = before[-1]
        yield ShardCounts(np.concatenate([section.lengths for section in part]), sections[new], sections)


def describe_file(path: pathlib.Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": path.stat().st_size, "xxh3_128": file_digest(path)}


def finish(
    folder: str | os.PathLike[str],
    tokenizer: _Tokenizer,
    splits: Mapping[str, Sequence[str]],
    dropped: Mapping[str, int] | None = None,
    counted: Callable[[str], tuple[Iterable[ShardCounts], dict[str, Any]]] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Complete a corpus whose shards are written: side arrays, tokenizer, digests, and the manifest as the last file.

    Args:
      folder: where the shards are.
      tokenizer: what made the tokens; saved into the corpus.
      splits: the shard file names of each split, in the order that numbers its documents.
      dropped: reason -> count of what was not used.
      counted: `count_shard` and `describe_file` of a shard by its name, where known; else shards are read here.
      **about: anything else that is JSON, kept in the manifest (settings, sources).

    Returns:
      The manifest.
    """
    folder = pathlib.Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # from here on, and until the new manifest, the corpus is unfinished
    tokenizer.save(folder / "tokenizer")
    counted = counted or (lambda name: (count_shard(folder / name), describe_file(folder / name)))
    files: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "tokenizer").iterdir()):
        if path.is_file():
            files[f"tokenizer/{path.name}"] = describe_file(path)
    counts = {split: _side_arrays(folder, split, shards, counted, files) for split, shards in splits.items()}
    manifest = {
        "format": FORMAT,
        "tokenizer": {"kind": tokenizer.kind, "pieces": len(tokenizer), "digest": tokenizer.digest()},
        "splits": counts,
        "dropped": dict(dropped or {}),
        **about,
        "files": files,
    }
    part = folder / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1) + "\n")
    replace(part, folder / MANIFEST)
    return manifest


def _side_arrays(
    folder: pathlib.Path,
    split: str,
    shards: Sequence[str],
    counted: Callable[[str], tuple[Iterable[ShardCounts], dict[str, Any]]],
    files: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Write the cumulative counts of a split, shard by shard; what is said of its files is added to `files`."""
    kinds = ("sentences", "documents", "sections")
    writers = {kind: ArrayWriter(folder / f"{split}.{kind}.npy", "<i8") for kind in kinds}
    tokens = sentences = 0
    records: list[int] = []
    try:
        for shard in shards:
            parts, files[shard] = counted(shard)
            count = 0
            for part in parts:
                ends = np.cumsum(part.lengths, dtype=np.int64)
                writers["sentences"].append(tokens + ends - part.lengths)
                writers["documents"].append(sentences + part.documents)
                writers["sections"].append(sentences + part.sections)
                tokens, sentences, count = tokens + int(ends[-1]), sentences + len(ends), count + len(part.sections)
            records.append(count)
        documents = writers["documents"].length
        for kind, total in (("sentences", tokens), ("documents", sentences), ("sections", sentences)):
            writers[kind].append(np.array([total]))
            writers[kind].close()
    except BaseException:
        for writer in writers.values():
            writer.discard()
        raise
    files |= {f"{split}.{kind}.npy": describe_file(folder / f"{split}.{kind}.npy") for kind in kinds}
    return {
        "documents": documents,
        "sentences": sentences,
        "tokens": tokens,
        "shards": [{"file": shard, "records": count} for shard, count in zip(shards, records)],
    }


class Corpus:
    """One split of a prepared corpus, for random access by many threads; it can be sent to another process.

    Attributes:
      manifest: the content of manifest.json.
      fingerprint: digests of the content that was read, never paths.
      document_sentences: int64 [documents + 1], the first sentence of each document, then the number of sentences.
      sentence_tokens: int64 [sentences + 1], the first token of each sentence, then the number of tokens.
    """

    def __init__(
        self, folder: str | os.PathLike[str], split: str = "train", verify: bool = False, cache_tokens: int = 1 << 24
    ):
        """Open a corpus.

        Args:
          folder: what `python -m ctxjax.prepare --output` wrote.
          split: "train" or "heldout".
          verify: compare the digests of the shards too. Without it a shard's size is compared now and each part of it
            carries a hash that is compared when it is read; the other files' digests are always compared.
          cache_tokens: how many decoded tokens are kept in memory.

        Raises:
          ConfigError: no such corpus or split.
          CorpusError: a file that is missing, or not as it was written.
        """
        self.folder, self.split, self.cache_tokens = pathlib.Path(folder), split, cache_tokens
        self.manifest = read_manifest(self.folder)
        if split not in self.manifest["splits"]:
            known = ", ".join(self.manifest["splits"])
            raise ConfigError(f"corpus {self.folder} has no split {split!r}; it has {known}")
        self._check_files(verify)
        about = self.manifest["splits"][split]
        self.num_documents: int = about["documents"]
        self.num_sentences: int = about["sentences"]
        self.num_tokens: int = about["tokens"]
        self.sentence_tokens = self._array("sentences", self.num_sentences + 1)
        self.document_sentences = self._array("documents", self.num_documents + 1)
        self._shards = [shard["file"] for shard in about["shards"]]
        self._shard_records = np.cumsum([0, *(shard["records"] for shard in about["shards"])])
        self._section_sentences = self._array("sections", int(self._shard_records[-1]) + 1)
        self._section_tokens = self.sentence_tokens[self._section_sentences]
        self._lock = threading.Lock()
        self._readers: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._sections: collections.OrderedDict[int, tuple[Section, np.ndarray]] = collections.OrderedDict()
        self._cached = 0
        self._tokenizer: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (Corpus, (self.folder, self.split, False, self.cache_tokens))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that made the corpus (`ctxjax.text`)."""
        if self._tokenizer is None:
            from ctxjax.text import open_tokenizer

            self._tokenizer = open_tokenizer(self.folder / "tokenizer")
        return self._tokenizer

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the content is, wherever it lies: digests of tokenizer and shards."""
        files = self.manifest["files"]
        return {
            "tokenizer": self.manifest["tokenizer"]["digest"],
            "split": self.split,
            "shards": fingerprint([files[shard]["xxh3_128"] for shard in self._shards]),
        }

    def read(self, first_sentence: int, last_sentence: int) -> tuple[Integer[np.ndarray, " tokens"], list[str]]:
        """Tokens (int32) of the sentences first, ..., last - 1, and the surface forms of the unknown ones."""
        return self.read_tokens(int(self.sentence_tokens[first_sentence]), int(self.sentence_tokens[last_sentence]))

    def read_tokens(self, start: int, stop: int) -> tuple[Integer[np.ndarray, " tokens"], list[str]]:
        """Tokens (int32) start, ..., stop - 1 of the split, and the surface forms of the unknown ones."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start}:{stop} of a split of {self.num_tokens}")
        tokens, words, filled = np.empty(stop - start, np.int32), [], 0
        number = int(self._section_tokens.searchsorted(start, "right")) - 1
        while start < stop:
            base, end = int(self._section_tokens[number]), int(self._section_tokens[number + 1])
            section, at = self._section(number)
            low, high = start - base, min(stop, end) - base
            tokens[filled : filled + high - low] = section.tokens[low:high]
            if section.unknown:
                words += section.unknown[at.searchsorted(low) : at.searchsorted(high)]
            start, number, filled = end, number + 1, filled + high - low
        return tokens, words

    def _section(self, number: int) -> tuple[Section, Integer[np.ndarray, " unknown"]]:
        """A section, and where its unknown words are."""
        with self._lock:
            if number in self._sections:
                self._sections.move_to_end(number)
                return self._sections[number]
        shard = int(np.searchsorted(self._shard_records, number, "right")) - 1
        path = self.folder / self._shards[shard]
        reader = self._reader(shard, path)
        try:
            section = decode_section(reader.read([number - int(self._shard_records[shard])])[0])
        except (RuntimeError, ValueError, IndexError) as error:
            raise corrupt_shard(path, error) from error
        at = np.flatnonzero(section.tokens == self.tokenizer.unk_id) if section.unknown else np.empty(0, np.int64)
        held = int(self._section_tokens[number + 1] - self._section_tokens[number])
        if len(section.tokens) != held or len(section.unknown) != len(at):
            raise corrupt_shard(path, "a section is not what the side arrays or its unknown words say")
        with self._lock:
            if number not in self._sections:
                self._cached += held
            self._sections[number] = section, at
            while self._cached > self.cache_tokens and len(self._sections) > 1:
                self._cached -= len(self._sections.popitem(last=False)[1][0].tokens)
        return section, at

    def _reader(self, shard: int, path: pathlib.Path) -> Any:
        with self._lock:
            if shard in self._readers:
                self._readers.move_to_end(shard)
            else:
                self._readers[shard] = open_shard(path)
                if len(self._readers) > _OPEN_SHARDS:
                    self._readers.popitem(last=False)  # closed when its last user lets go
            return self._readers[shard]

    def _array(self, kind: str, length: int) -> Integer[np.ndarray, " _"]:
        path = self.folder / f"{self.split}.{kind}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise CorpusError(f"side array {path} is corrupt ({error}); run python -m ctxjax.prepare again") from error
        if array.dtype != np.int64 or array.shape != (length,):
            raise CorpusError(f"side array {path} does not agree with the manifest; run python -m ctxjax.prepare again")
        return array.view(np.ndarray)

    def _check_files(self, verify: bool) -> None:
        for name, written in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise CorpusError(f"file {path} of the corpus is missing; run python -m ctxjax.prepare again")
            size = path.stat().st_size
            if size != written["bytes"]:
                raise CorpusError(
                    f"file {path} of the corpus has {size} bytes, {written['bytes']} were written; "
                    "run python -m ctxjax.prepare again"
                )
            if (verify or path.suffix != SUFFIX) and file_digest(path) != written["xxh3_128"]:
                raise CorpusError(f"file {path} of the corpus is corrupt; run python -m ctxjax.prepare again")


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a prepared corpus.

    Raises:
      ConfigError: the folder holds no finished corpus, or one of another format.
    """
    path = pathlib.Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"corpus {folder} is not prepared; run python -m ctxjax.prepare --input PATH... --output {folder}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorpusError(f"manifest {path} is corrupt ({error}); run python -m ctxjax.prepare again") from None
    if manifest.get("format") != FORMAT:
        raise ConfigError(
            f"corpus {folder} has format {manifest.get('format')}, this version reads {FORMAT}; "
            "run python -m ctxjax.prepare again"
        )
    return manifest

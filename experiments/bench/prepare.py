"""How fast `prepare` is beside the bare tokeniser, and how much memory it takes as the input grows.

The bare rate is Hugging Face's `encode_batch` on paragraphs already in memory, on all cores. The rate of `prepare` is
that of the whole command: starting Python, decompressing, reading, splitting sentences, tokenising, writing shards and
checking them. Both use the vocabulary of 8,000 pieces that a first `prepare` learned from the text: `--text FILE`,
JSON lines with a field `text`, or made-up words. The sizes repeat its documents, each with a number of its own.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import pathlib
import random
import shutil
import time

from experiments.bench import programs
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

MEGABYTES = {"prepare": 0, "prepare_10mb": 10, "prepare_150mb": 150, "prepare_1000mb": 1000}  # 0: the text as it is
ITEMS = {
    name: f"raw text to shards, {f'{size} MB of it' if size else 'the whole command'}"
    for name, size in MEGABYTES.items()
}
PIECES = 8000


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `MEGABYTES`."""
    os.environ["RAYON_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    text = functools.cache(lambda: _text(name, settings))
    pieces = 300 if settings.tiny else PIECES
    learn = functools.cache(lambda: _learned(text()[1], pieces))
    return Work(
        counted="tokens",
        ours=lambda: _ours(text()[1], learn()),
        peers={} if MEGABYTES[name] else {"bare tokeniser": lambda: _bare(text()[0], learn())},
        on="host",
        notes={"text": pathlib.Path(settings.text).name or "generated"},
    )


def _text(name: str, settings: Settings) -> tuple[list[str], pathlib.Path]:
    """Documents, and a file of them of the size of an item."""
    size = 200_000 if settings.tiny else 20_000_000
    documents = _read(pathlib.Path(settings.text)) if settings.text else generated(size)
    if settings.text and not MEGABYTES[name]:
        return documents, pathlib.Path(settings.text)
    size = size if settings.tiny else MEGABYTES[name] * 1_000_000 or sum(map(len, documents))
    path = programs.scratch() / "text.jsonl"
    of_size(documents, size, path)
    return documents, path


def generated(size: int) -> list[str]:
    """Documents of made-up words with the frequencies of real ones, so many characters."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(2, 10))) for _ in range(50_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    documents, length = [], 0
    while length < size:
        sentences = []
        for _ in range(rng.randint(20, 400)):
            sentences.append(" ".join(rng.choices(words, cum_weights=weights, k=rng.randint(5, 35))).capitalize() + ".")
        documents.append("\n".join(" ".join(sentences[i : i + 8]) for i in range(0, len(sentences), 8)))
        length += len(documents[-1])
    return documents


def _read(path: pathlib.Path) -> list[str]:
    from ctxjax.data import piecework, reading

    inputs = reading.describe([path], "auto")
    pieces = reading.read_pieces(inputs, {})
    return [d.text for p in pieces for c in p.chunks for d in piecework.documents(c, "text", {}, set())]


def of_size(documents: list[str], size: int, path: pathlib.Path) -> None:
    """JSON lines of about `size` bytes."""
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        for number, document in enumerate(itertools.cycle(documents)):
            text = document if number < len(documents) else f"{document} Copy {number}."
            written += file.write(json.dumps({"text": text}) + "\n")
            if written >= size:
                return


def _learned(path: pathlib.Path, pieces: int) -> pathlib.Path:
    """A vocabulary of the text."""
    folder = programs.scratch()
    _prepare(path, folder / "corpus", ["--vocab_size", str(pieces)])
    shutil.copytree(folder / "corpus" / "tokenizer", folder / "vocabulary")
    return folder / "vocabulary" / "vocab.txt"


def _prepare(path: pathlib.Path, output: pathlib.Path, options: list[str]) -> Step:
    shutil.rmtree(output, ignore_errors=True)
    arguments = ["ctxjax.prepare", "--input", str(path), "--output", str(output), *options]
    seconds, peak, _ = programs.run(arguments)
    splits = json.loads((output / "manifest.json").read_text())["splits"]
    return Step(sum(split["tokens"] for split in splits.values()), seconds, memory=peak)


def _ours(path: pathlib.Path, vocabulary: pathlib.Path) -> Side:
    output = programs.scratch() / "corpus"
    return lambda: _prepare(path, output, ["--vocab", str(vocabulary)])


def _bare(documents: list[str], vocabulary: pathlib.Path) -> Side:
    """`encode_batch`, a thousand paragraphs at a time."""
    from tokenizers.implementations import BertWordPieceTokenizer

    from ctxjax.text import open_tokenizer

    lowercase = open_tokenizer(vocabulary.parent).options()["lowercase"]
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase)
    paragraphs = [line for document in documents for line in document.split("\n") if line]

    def step() -> Step:
        began, tokens = time.perf_counter(), 0
        for first in range(0, len(paragraphs), 1000):
            found = tokenizer.encode_batch(paragraphs[first : first + 1000], add_special_tokens=False)
            tokens += sum(map(len, found))
        return Step(tokens, time.perf_counter() - began)

    return step

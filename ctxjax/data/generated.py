"""A small corpus of a made-up language, for smoke runs and tests: written in a moment, the same every time.

Words are two or three syllables. A document keeps to one of a few topics, each with its own words, and what follows a
word depends on it, so masked pieces, next words and next sentences can all be learned from it.
"""

from __future__ import annotations

import collections
import functools
import os
import pathlib
import random
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from ctxjax.data import corpus

SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "zu", "ka")
TOPICS = 4
FOLLOWERS = 6
WORDS = 200
_kept: dict[tuple[str, int, bool], tempfile.TemporaryDirectory[str]] = {}


def documents(count: int, seed: int = 0) -> Iterator[list[str]]:
    """Documents of the language, each a list of sentences of space-separated words."""
    language, draw = random.Random("language"), random.Random(f"documents {seed}")
    words = _words(language)
    topics = [words[topic::TOPICS] for topic in range(TOPICS)]
    follows = {word: language.choices(topic, k=FOLLOWERS) for topic in topics for word in topic}
    for _ in range(count):
        topic = draw.choice(topics)
        sentences = []
        for _ in range(draw.randint(3, 30)):
            sentence = [draw.choice(topic)]
            while len(sentence) < 3 or draw.random() < 0.85:
                sentence.append(draw.choice(follows[sentence[-1]]))
            sentences.append(" ".join([*sentence, "."]))
        yield sentences


def pairs(count: int, seed: int = 0) -> Iterator[list[str]]:
    """Sentences of the language, each with its translation: every word has one other, and every two change places."""
    words = _words(random.Random("language"))
    meanings = dict(zip(words, random.Random("translation").sample(words, WORDS)))
    for sentence in (sentence for document in documents(count, seed) for sentence in document):
        told = [meanings.get(word, word) for word in sentence.split()]
        even = len(told) // 2 * 2
        told[0:even:2], told[1:even:2] = told[1:even:2], told[0:even:2]
        yield [sentence, " ".join(told)]


def _words(language: random.Random) -> list[str]:
    return language.sample([a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", *SYLLABLES)], WORDS)


def make_tokenizer(kind: str):
    """A tokenizer of any kind whose vocabulary leaves the rarer words in pieces, or unknown."""
    if kind == "byte_bpe":
        from ctxjax.text import byte_bpe

        return byte_bpe.learn((" ".join(text) for text in documents(100)), 257 + WORDS)
    if kind == "bpe":
        from ctxjax.text import bpe

        return bpe.learn((" ".join(text) for text in documents(100)), 60 + WORDS)
    counts = collections.Counter(word for text in documents(100) for sentence in text for word in sentence.split())
    frequent = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    if kind == "words":
        from ctxjax.text.words import Words

        return Words(["<S>", "</S>", "<UNK>", *frequent[: WORDS * 4 // 5]])
    from ctxjax.text.wordpiece import SPECIALS, WordPiece

    syllables = [*SYLLABLES, *(f"##{syllable}" for syllable in SYLLABLES)]
    return WordPiece([*SPECIALS, *frequent[: WORDS // 2], *syllables])


def write_corpus(
    folder: str | os.PathLike[str], kind: str, count: int = 200, shards: int = 2, parallel: bool = False
) -> None:
    """Write a prepared corpus of `count` training documents, or their sentences as pairs, and a tenth held out."""
    folder, tokenizer = pathlib.Path(folder), make_tokenizer(kind)
    splits = {}
    for split, number, seed in (("train", count, 0), ("heldout", max(2, count // 10), 1)):
        texts = list((pairs if parallel else documents)(number, seed))
        names = [corpus.shard_name(split, shard, shards) for shard in range(shards)]
        for shard, name in enumerate(names):
            records = []
            for document, sentences in enumerate(texts[shard::shards]):
                if tokenizer.keeps_space and not parallel:
                    sentences = [sentences[0], *(f" {sentence}" for sentence in sentences[1:])]
                encoded = [tokenizer.encode_sentences([sentence]) for sentence in sentences]
                records += corpus.sections(document, [one.ids for one in encoded], [one.unknown for one in encoded])
            corpus.write_shard(folder / name, records)
        splits[split] = names
    about = {"inputs": {"formats": ["pairs"]}} if parallel else {}
    corpus.finish(folder, tokenizer, splits, **about)


def generated_corpus(kind: str, count: int = 200, pairs: bool = False) -> str:
    """The folder of a generated corpus, written once a process and removed at its end."""
    key = (kind, count, pairs)
    if key not in _kept:
        folder = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
        write_corpus(folder.name, kind, count, parallel=pairs)
        _kept[key] = folder
    return _kept[key].name


def generated_mixture(kind: str, counts: Mapping[str, int]) -> str:
    """A folder of generated corpora of one tokenizer, name -> number of documents, written once a process."""
    key = (f"mixture of {kind}: {dict(counts)}", 0, False)
    if key not in _kept:
        folder = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
        for name, count in counts.items():
            write_corpus(pathlib.Path(folder.name, name), kind, count)
        _kept[key] = folder
    return _kept[key].name


def generated_texts(count: int = 400) -> str:
    """The folder of generated texts labelled with their topics, in fastText's layout, written once a process."""
    key = ("texts", count, False)
    if key not in _kept:
        folder = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
        topics = {word: place % TOPICS for place, word in enumerate(_words(random.Random("language")))}
        for split, number, seed in (("train", count, 0), ("heldout", count // 4, 1)):
            texts = [sentences[0].removesuffix(" .") for sentences in documents(number, seed)]
            lines = [f"__label__topic{topics[text.split()[0]]} {text}\n" for text in texts]
            pathlib.Path(folder.name, f"{split}.txt").write_text("".join(lines))
        _kept[key] = folder
    return _kept[key].name


def generated_tags(count: int = 400) -> str:
    """The folder of generated sentences with spans, in the files and columns of CoNLL-2003, written once a process.

    A word that ends in "ba" or "ku" is the name of a place or a person, together with the word before it where that
    ends in "o". The last column has the tags in IOB1, the one before in BIO. Beside the files lie `model.txt`, vectors
    of the words, and `letters`, which stands for the model of `store_vectors`.
    """
    key = ("tags", count, False)
    if key not in _kept:
        from ctxjax.text.tags import tags_of

        folder = tempfile.TemporaryDirectory(prefix="ctxjax-generated-")
        kinds = {"ba": "LOC", "ku": "PER"}
        for name, number, seed in (("eng.train", count, 0), ("eng.testa", count // 4, 1), ("eng.testb", count // 4, 2)):
            lines = ["-DOCSTART- -X- -X- O\n\n"]
            for sentences in documents(number, seed):
                words = sentences[0].split()
                spans, end = [], 0
                for place, word in enumerate(words):
                    if word[-2:] in kinds:
                        first = place - 1 if place > end and words[place - 1].endswith("o") else place
                        spans.append((kinds[word[-2:]], first, place + 1))
                        end = place + 1
                told = zip(words, *(tags_of(spans, len(words), scheme) for scheme in ("BIO", "IOB1")))
                lines += [" NN ".join([word, f"{bio} {iob}\n"]) for word, bio, iob in told] + ["\n"]
            pathlib.Path(folder.name, name).write_text("".join(lines))
        rows = [
            f"{word} {place % 7 - 3} {place % 5 - 2} {place % 3 - 1}\n"
            for place, word in enumerate(sorted(_words(random.Random("language"))))
        ]
        pathlib.Path(folder.name, "letters").write_text("three letters of each word\n")
        pathlib.Path(folder.name, "model.txt").write_text("".join([f"{len(rows)} 3\n", *rows]))
        _kept[key] = folder
    return _kept[key].name


def tagged_files(spans: bool) -> dict[str, Any]:
    """Fields of a source that reads `generated_tags`: as spans, or every tag for itself."""
    names = {"train": "eng.train", "heldout": "eng.testa", "test": "eng.testb", "word": 0}
    return {**names, "tag": -1, **({"read": "IOB1"} if spans else {"read": "", "scheme": ""})}


def store_vectors(folder: str, fields: Mapping[str, Any]) -> tuple[int, int]:
    """Store vectors of the words of `generated_tags`, as of a model with two layers; returns layers and width.

    Its path is `letters`, which `fields.vectors_of` names. Three letters of each word are its lower layer, and the last
    three its upper one, where both are asked for.
    """
    import numpy as np

    from ctxjax.data.sources.tagged import Source

    def write(words: list[str], several: bool, place: pathlib.Path) -> None:
        both = [[word.ljust(3)[:3], word.rjust(3)[-3:]][: 1 + several] for word in words]
        numbers = [[[ord(letter) / 128.0 for letter in part] for part in parts] for parts in both]
        np.save(place / "vectors.npy", np.array(numbers, np.float32))

    shape = (0, 0)
    given = {name: value for name, value in fields.items() if name not in ("name", "corpus", "split")}
    for split in ("train", "heldout", "test"):
        source = Source(folder, split, **given)
        words = [word for one in source.sentences for word in one.words]
        found = source.open_store(0, functools.partial(write, words, source.kind.is_range))
        shape = (found.shape[1], found.shape[2])
    return shape

"""Prepared corpora: what is written is read, over section and shard bounds, and damage is named."""

import json
import pathlib
import pickle
import threading
import tracemalloc

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import corpus
from ctxjax.data.corpus import Corpus, CorpusError


class Tokenizer:
    """What `finish` needs, with a vocabulary wide enough for 32-bit ids."""

    kind, unk_id = "words", 2

    def __len__(self):
        return 70_000

    def digest(self):
        return "0123"

    def save(self, folder):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        (pathlib.Path(folder) / "vocab.txt").write_text("<S>\n</S>\n<UNK>\n")


def write(folder, documents, shard_count=3):
    """Documents are lists of (ids, unknown words); shard k gets documents k, k + n, ...; returns their order."""
    names, order = [], []
    for shard in range(shard_count):
        mine = documents[shard::shard_count]
        names.append(corpus.shard_name("train", shard, shard_count))
        records = []
        for number, document in enumerate(mine):
            records += corpus.sections(number, [ids for ids, _ in document], [words for _, words in document])
        corpus.write_shard(folder / names[-1], iter(records))
        order += mine
    corpus.finish(folder, Tokenizer(), {"train": names}, {"empty documents": 2}, settings={"a": 1})
    return order


def make_documents(count, top=70_000, seed=0):
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        sentences = [rng.integers(2, top, rng.integers(1, 60)) for _ in range(rng.integers(1, 400))]
        for sentence in sentences:
            sentence[rng.random(len(sentence)) < 0.03] = 2
        surfaces = [[f"wörd{rng.integers(1000)}\n" for _ in range((ids == 2).sum())] for ids in sentences]
        documents.append(list(zip(sentences, surfaces)))
    return documents


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    order = write(folder, make_documents(20))
    return folder, [sentence for document in order for sentence in document], order


@pytest.fixture
def opened(written):
    found = Corpus(written[0], cache_tokens=20_000)  # smaller than the corpus, so sections are dropped and read again
    found._tokenizer = Tokenizer()
    return found


@pytest.mark.parametrize("top", [60_000, 70_000])
def test_section_round_trip(top):
    tokens = np.arange(top - 10, top)
    section = corpus.decode_section(corpus.encode_section(2**40, [4, 6], tokens, ["a", "", "\ud800\n日"]))
    assert section.document == 2**40 and section.lengths.tolist() == [4, 6]
    assert section.tokens.tolist() == tokens.tolist() and section.unknown == ["a", "", "\ud800\n日"]
    assert section.tokens.dtype == (np.uint16 if top <= 2**16 else np.uint32)


@pytest.mark.parametrize("lengths,tokens", [([], []), ([0, 2], [1, 2]), ([3], [1, 2]), ([2], [1, -1])])
def test_impossible_sections_are_refused(lengths, tokens):
    with pytest.raises(ValueError):
        corpus.encode_section(0, lengths, tokens)


def test_truncated_or_foreign_records_are_refused():
    record = corpus.encode_section(0, [3], [1, 2, 3], ["x"])
    for cut in range(len(record)):
        with pytest.raises(ValueError):
            corpus.decode_section(record[:cut])
    with pytest.raises(ValueError):
        corpus.decode_section(record + b"x")
    with pytest.raises(ValueError):
        corpus.decode_section(b"CTX2" + record[4:])


def test_sections_close_at_their_size_and_never_inside_a_sentence():
    sentences = [np.full(1000, 5), np.empty(0, np.int64), np.full(3500, 6), np.full(9000, 7), np.full(3, 8)]
    found = [corpus.decode_section(record) for record in corpus.sections(3, sentences)]
    assert [section.lengths.tolist() for section in found] == [[1000, 3500], [9000], [3]]
    assert {section.document for section in found} == {3}


def test_counts_and_bounds(written, opened):
    _, sentences, order = written
    assert opened.num_documents == 20 and opened.num_sentences == len(sentences)
    assert opened.sentence_tokens.tolist() == np.cumsum([0] + [len(ids) for ids, _ in sentences]).tolist()
    assert opened.document_sentences.tolist() == np.cumsum([0] + [len(document) for document in order]).tolist()
    assert opened.num_tokens == opened.sentence_tokens[-1]
    assert opened.manifest["dropped"] == {"empty documents": 2} and opened.manifest["settings"] == {"a": 1}


def test_any_span_is_what_was_written(written, opened):
    sentences, rng = written[1], np.random.default_rng(1)
    for _ in range(300):
        first = int(rng.integers(0, len(sentences)))
        last = min(len(sentences), first + int(rng.integers(0, 300)))
        tokens, unknown = opened.read(first, last)
        assert tokens.dtype == np.int32
        assert tokens.tolist() == [token for ids, _ in sentences[first:last] for token in ids]
        assert unknown == [word for _, words in sentences[first:last] for word in words]
    with pytest.raises(IndexError):
        opened.read_tokens(0, opened.num_tokens + 1)


def test_threads_read_the_same(written, opened):
    sentences, wrong = written[1], []

    def check(seed):
        rng = np.random.default_rng(seed)
        for _ in range(150):
            number = int(rng.integers(0, len(sentences)))
            if opened.read(number, number + 1)[0].tolist() != sentences[number][0].tolist():
                wrong.append(number)

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_corpus_travels_to_another_process(opened):
    other = pickle.loads(pickle.dumps(opened))
    other._tokenizer = Tokenizer()
    assert other.fingerprint == opened.fingerprint and other.cache_tokens == opened.cache_tokens
    assert other.read(5, 9)[0].tolist() == opened.read(5, 9)[0].tolist()


def test_the_same_documents_give_the_same_bytes(written, tmp_path):
    write(tmp_path, make_documents(20))
    assert Corpus(tmp_path).manifest == Corpus(written[0]).manifest
    write(tmp_path, make_documents(20, seed=1))
    assert Corpus(tmp_path).fingerprint != Corpus(written[0]).fingerprint


def test_an_interrupted_shard_leaves_no_file(tmp_path):
    def records():
        yield corpus.encode_section(0, [1], [1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.write_shard(tmp_path / "train-00000-of-00001.array_record", records())
    assert not list(tmp_path.iterdir())


def test_open_shards_are_few(written, monkeypatch):
    monkeypatch.setattr(corpus, "_OPEN_SHARDS", 1)
    found = Corpus(written[0], cache_tokens=1)
    found._tokenizer = Tokenizer()
    for number in range(0, found.num_sentences, 37):
        assert found.read(number, number + 1)[0].tolist() == written[1][number][0].tolist()
    assert len(found._readers) == 1


def copy(source, target):
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target


NAMES = ["train-00001-of-00003.array_record", "train.sentences.npy", "train.documents.npy", "tokenizer/vocab.txt"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "cut"])
def test_missing_and_truncated_files_are_named_before_use(written, tmp_path, name, damage):
    path = copy(written[0], tmp_path) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: {"empty": 0, "half": len(content) // 2, "cut": len(content) - 1}[damage]])
    with pytest.raises(CorpusError, match=path.name):
        Corpus(tmp_path)


def test_flipped_bits_are_found_and_named(written, tmp_path):
    folder, rng, found = copy(written[0], tmp_path), np.random.default_rng(2), 0
    path = folder / NAMES[0]
    content = path.read_bytes()
    right = Corpus(written[0])
    right._tokenizer = Tokenizer()
    expected = right.read(0, right.num_sentences)
    for position in rng.integers(0, len(content), 30):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=path.name):
            Corpus(folder, verify=True)
        try:
            opened = Corpus(folder)
            opened._tokenizer = Tokenizer()
            got = opened.read(0, opened.num_sentences)
        except CorpusError as error:
            assert path.name in str(error)
            found += 1
        else:  # the bit is in padding between blocks: nothing that is read has changed
            assert got[0].tolist() == expected[0].tolist() and got[1] == expected[1]
    assert found >= 10


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_flipped_bit_in_a_side_file_is_always_found(written, tmp_path, name):
    path = copy(written[0], tmp_path) / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=path.name):
        Corpus(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_broken_shard_is_named_when_it_is_read_alone(written, tmp_path, size):
    path = tmp_path / "shard.array_record"
    with pytest.raises(CorpusError, match=r"shard\.array_record is missing"):
        list(corpus.read_shard(path))
    path.write_bytes((written[0] / NAMES[0]).read_bytes()[:size])
    with pytest.raises(CorpusError, match=r"shard\.array_record is truncated or corrupt"):
        list(corpus.read_shard(path))


def test_no_corpus_is_one_sentence(tmp_path, written):
    with pytest.raises(ConfigError, match=r"is not prepared; run python -m ctxjax\.prepare"):
        Corpus(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no split 'dev'; it has train"):
        Corpus(written[0], "dev")
    copy(written[0], tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ConfigError, match="has format 99, this version reads 1"):
        Corpus(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CorpusError, match=r"manifest\.json is corrupt"):
        Corpus(tmp_path)


def test_writing_is_bounded_in_memory(tmp_path):
    # 1,000 sections of 9 kB: holding all of them would take 9 MB.
    name = corpus.shard_name("train", 0, 1)
    records = (corpus.encode_section(number, [50] * 90, np.ones(4500, np.int64)) for number in range(1000))
    tracemalloc.start()
    try:
        assert corpus.write_shard(tmp_path / name, records) == 1000
        corpus.finish(tmp_path, Tokenizer(), {"train": [name]})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / name).stat().st_size > 9e6
    assert peak < 4e6  # of which 2 MB are the buffer of the digest

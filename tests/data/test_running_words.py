"""Rows of running words: sub-sampling before windows, sentences, negatives, the Huffman tree; and co-occurrences."""

import collections
import heapq

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.corpus import Corpus
from ctxjax.data.generated import generated_corpus
from ctxjax.data.sources import cooccurrences, running_words
from ctxjax.data.transforms import cooccurrence, frequency


@pytest.fixture(scope="module")
def folder():
    return generated_corpus("words")


@pytest.fixture(scope="module")
def text(folder):
    """(sentence, document, word) of every place of the training split."""
    corpus = Corpus(folder)
    tokens = corpus.read(0, corpus.num_sentences)[0]
    sentences = corpus.sentence_tokens.searchsorted(np.arange(len(tokens)), "right") - 1
    documents = corpus.document_sentences.searchsorted(sentences, "right") - 1
    return sentences, documents, tokens


def a_pass(source, number=0):
    elements = np.arange(source.rows_per_pass) + number * source.rows_per_pass
    return source.batch(3, 8, elements)


def test_chances_are_those_of_the_released_code():
    counts = np.array([0, 0, 0, 6000, 900, 3000, 100])
    f = counts[3:] / 10_000
    expected = np.minimum(1.0, (np.sqrt(f / 0.01) + 1) * 0.01 / f)
    np.testing.assert_allclose(frequency.keep_chances(counts, 0.01)[3:], expected)
    assert frequency.keep_chances(counts, 0.01)[:3].tolist() == [0, 0, 0]
    assert frequency.keep_chances(counts, 0.0).tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_without_sampling_a_pass_is_every_word_once(folder, text):
    source = running_words.Source(folder, length=64, block=32, sample=0.0)
    batch = a_pass(source)
    real = batch["weights"] > 0
    expected = np.bincount(text[2], minlength=source.vocab_size)
    expected[:3] = 0
    np.testing.assert_array_equal(source.counts, expected)
    np.testing.assert_array_equal(np.bincount(batch["inputs"]["tokens"][real], minlength=source.vocab_size), expected)
    np.testing.assert_array_equal(batch["targets"], batch["inputs"]["tokens"])
    assert real.mean() > 0.95 and source.tokens_per_row == pytest.approx(real.sum() / len(real), abs=1)


def test_rows_are_stretches_of_the_text_with_its_sentences(folder, text):
    """Each row is found in the text without marks, and two of its words share a number as they share a sentence."""
    source = running_words.Source(folder, length=64, block=32, sample=0.0)
    sentences, _, tokens = (values[text[2] >= 3] for values in text)
    whole = tokens.astype("<i4").tobytes()
    batch = a_pass(source)
    for row in range(0, len(batch["weights"]), 7):
        count = int(batch["weights"][row].sum())
        place = whole.find(batch["inputs"]["tokens"][row, :count].astype("<i4").tobytes())
        assert place >= 0 and place % 4 == 0
        here = sentences[place // 4 : place // 4 + count]
        np.testing.assert_array_equal(batch["sentences"][row, :count], here - here[0])


def test_sampling_keeps_as_many_as_it_should(folder):
    source = running_words.Source(folder, length=64, block=32, sample=0.005)
    chances = frequency.keep_chances(source.counts, 0.005)
    assert chances[3:].min() < 0.8
    kept = np.zeros(source.vocab_size)
    for number in range(20):
        batch = a_pass(source, number)
        kept += np.bincount(batch["inputs"]["tokens"][batch["weights"] > 0], minlength=source.vocab_size)
    expected = 20 * source.counts * chances
    spread = np.sqrt(20 * source.counts * chances * (1 - chances))
    assert np.all(np.abs(kept - expected) <= 5 * spread + 1e-9)
    first, second = (a_pass(source, number)["inputs"]["tokens"] for number in (0, 1))
    assert not np.array_equal(first, second)


def test_windows_are_uniform_and_negatives_follow_the_power_of_counts(folder):
    source = running_words.Source(folder, length=64, block=16, negatives=48, window=5, sample=0.0)
    batch = a_pass(source)
    reach = batch["reach"].sum(-1)[batch["weights"] > 0]
    shares = np.bincount(reach, minlength=6) / len(reach)
    assert shares[0] == 0 and np.abs(shares[1:] - 0.2).max() < 5 * np.sqrt(0.16 / len(reach))
    assert batch["negatives"].shape[1:] == (4, 48)
    drawn = np.bincount(batch["negatives"].reshape(-1), minlength=source.vocab_size)
    law = source.counts**0.75 / (source.counts**0.75).sum()
    assert drawn[:3].sum() == 0
    assert np.all(np.abs(drawn - drawn.sum() * law) <= 5 * np.sqrt(drawn.sum() * law) + 1)
    fixed = running_words.Source(folder, length=64, block=16, dynamic=False)
    assert a_pass(fixed)["reach"].min() == 1


def test_held_out_words_are_counted_as_in_training(folder):
    train, heldout = (running_words.Source(folder, split, length=64, block=32) for split in ("train", "heldout"))
    np.testing.assert_array_equal(train.counts, heldout.counts)


def test_rows_of_ngrams(folder):
    from ctxjax.text.subwords import ngram_hashes

    source = running_words.Source(folder, length=64, block=32, sample=0.0, buckets=99, max_subwords=7)
    batch = source.batch(0, 4, np.arange(4))
    word = batch["inputs"]["tokens"][2, 5]
    hashes = ngram_hashes(source.tokenizer.pieces[word], 3, 6)[:7]
    expected = [source.vocab_size + value % 99 for value in hashes] + [-1] * (7 - len(hashes))
    assert batch["inputs"]["subwords"][2, 5].tolist() == expected


@pytest.mark.parametrize(
    "fields, message",
    [({"block": 48}, "must divide"), ({"window": 40, "block": 32}, "at least"), ({"negatives": 0}, ">= 1")],
)
def test_impossible_fields_are_named(folder, fields, message):
    with pytest.raises(ConfigError, match=message):
        running_words.Source(folder, **({"length": 64, "block": 32} | fields))


def test_huffman_codes_are_shortest_and_no_code_begins_another():
    counts = np.concatenate([[0, 0, 0], np.random.default_rng(0).zipf(1.4, 60).clip(1, 500)])
    nodes, turns = frequency.huffman(counts)
    lengths = (turns >= 0).sum(1)
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    least = 0
    while len(heap) > 1:
        least += (merged := heapq.heappop(heap) + heapq.heappop(heap))
        heapq.heappush(heap, merged)
    assert (lengths * counts).sum() == least and lengths[:3].tolist() == [0, 0, 0]
    codes = ["".join(map(str, row[row >= 0])) for row in turns[3:]]
    assert not any(one != two and two.startswith(one) for one in codes for two in codes)
    assert set(nodes[3:, 0]) == {58} and nodes.max() == 58  # 59 inner nodes, the root last
    following = collections.defaultdict(set)
    for path, code in zip(nodes[3:], codes):
        for place, turn in enumerate(code[:-1]):
            following[path[place], turn].add(path[place + 1])
    assert all(len(after) == 1 for after in following.values())


def test_cooccurrences_are_those_of_a_plain_count(folder, text, monkeypatch):
    """In runs of a few hundred pairs, merged in small pieces; windows reach over sentences, not documents."""
    monkeypatch.setattr(cooccurrence, "_ENTRIES", 2000)
    source = cooccurrences.Source(folder, length=128, window=4)
    plain = collections.Counter()
    _, documents, tokens = (values[text[2] >= 3].tolist() for values in text)
    for place, word in enumerate(tokens):
        for far in range(1, 5):
            if place + far < len(tokens) and documents[place + far] == documents[place]:
                plain[word, tokens[place + far]] += 1 / far
                plain[tokens[place + far], word] += 1 / far
    found = {}
    steps = -(-source.pairs // 128)
    batch = source.batch(0, steps, np.arange(steps))
    for word, other, count, real in zip(
        *(
            leaf.reshape(-1).tolist()
            for leaf in (batch["inputs"]["tokens"], batch["targets"], batch["counts"], batch["weights"])
        )
    ):
        if real:
            assert (word, other) not in found
            found[word, other] = count
    assert found.keys() == plain.keys()
    for pair, count in plain.items():
        assert found[pair] == pytest.approx(count, rel=1e-5)

"""Streams: a lane read over its steps is the sentences themselves, in order, each once, in both directions."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ctxjax.config import ConfigError
from ctxjax.data import corpus, draws, generated
from ctxjax.data.sources.streams import Source
from ctxjax.text import characters
from ctxjax.text.words import Words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    generated.write_corpus(folder, "words", count=40)
    return folder


def read_pass(source, seed, batch_size, pass_number=0):
    """Inputs and targets of every lane of a pass, `[directions, lanes, L]`, and the batches."""
    steps = source.steps_per_pass(batch_size)
    elements = [np.arange(batch_size) + (pass_number * steps + step) * batch_size for step in range(steps)]
    batches = [source.batch(seed, batch_size, chosen) for chosen in elements]
    inputs = np.concatenate([batch["inputs"]["tokens"] for batch in batches], axis=-1)
    targets = np.concatenate([batch["targets"] for batch in batches], axis=-1)
    return inputs.swapaxes(0, 1), targets.swapaxes(0, 1), batches


def expected_stream(source, order, backward):
    """(inputs, targets) of the whole stream, made sentence by sentence."""
    tokenizer, inputs, targets = source.tokenizer, [], []
    for number in order:
        words = source.corpus.read(int(number), int(number) + 1)[0].tolist()
        whole = [tokenizer.bos_id, *words, tokenizer.eos_id]
        whole = whole[::-1] if backward else whole
        inputs += whole[:-1]
        targets += whole[1:]
    return inputs, targets


@pytest.mark.parametrize("batch_size,length", [(1, 7), (4, 20), (13, 3), (3, 200)])
def test_lanes_are_the_sentences_in_order(folder, batch_size, length):
    source = Source(folder, length=length)
    inputs, targets, batches = read_pass(source, 3, batch_size)
    used = source.steps_per_pass(batch_size) * batch_size * length
    (dropped,) = source.dropped(batch_size).values()
    assert dropped == source.pairs - used and 0 <= dropped < batch_size * length
    for axis, stream in enumerate(source._both(3, 0)):
        assert sorted(stream.order.tolist()) == list(range(source.corpus.num_sentences))
        read, told = expected_stream(source, stream.order, backward=axis == 1)
        assert len(read) == source.pairs == stream.starts[-1]
        assert inputs[axis].ravel().tolist() == read[:used]
        assert targets[axis].ravel().tolist() == told[:used]
    assert all((batch["weights"] == 1).all() for batch in batches)
    assert [batch["is_first"].tolist() for batch in batches[:2]] == [[True] * batch_size, [False] * batch_size]


def test_directions_and_passes_and_seeds_are_shuffled_independently(folder):
    source = Source(folder)
    count = source.corpus.num_sentences
    (forward, backward), later, other = source._both(1, 0), source._both(1, 1), source._both(2, 0)
    for one, two in [(forward, backward), (forward, later[0]), (forward, other[0]), (backward, later[1])]:
        assert abs(stats.spearmanr(one.order, two.order).statistic) < 5 / np.sqrt(count)
    assert abs(stats.spearmanr(forward.order, np.arange(count)).statistic) < 5 / np.sqrt(count)


def test_a_new_pass_restarts_the_lanes_in_a_new_order(folder):
    source = Source(folder, length=10)
    steps = source.steps_per_pass(4)
    first, second = read_pass(source, 0, 4), read_pass(source, 0, 4, 1)
    assert second[2][0]["is_first"].all() and not second[2][1]["is_first"].any()
    assert first[0].shape == second[0].shape and (first[0] != second[0]).mean() > 0.5
    assert (source.batch(0, 4, np.arange(4) + steps * 4)["targets"] == second[2][0]["targets"]).all()


def test_one_direction_has_no_direction_axis(folder):
    both, forward = Source(folder, length=9), Source(folder, length=9, directions="forward")
    two, one = both.batch(0, 6, np.arange(6, 18)), forward.batch(0, 6, np.arange(6, 18))
    assert one["targets"].shape == one["weights"].shape == (12, 9) and one["inputs"]["chars"].shape == (12, 9, 50)
    assert (one["targets"] == two["targets"][:, 0]).all()
    assert (one["inputs"]["tokens"] == two["inputs"]["tokens"][:, 0]).all()
    assert (one["inputs"]["chars"] == two["inputs"]["chars"][:, 0]).all()


def test_words_without_characters(folder):
    batch = Source(folder, characters=False).batch(0, 2, np.arange(2))
    assert set(batch["inputs"]) == {"tokens"}


def sentences_of(source):
    """Every sentence of the split with its surface forms, from the corpus's own text."""
    return [sentence for document in generated.documents(40) for sentence in document]


def test_characters_are_those_of_the_words_as_written(folder):
    """The characters of a lane spell the generated text, unknown words included."""
    source = Source(folder, length=15)
    tokenizer, texts = source.tokenizer, {}
    for sentence in sentences_of(source):
        ids = tuple(tokenizer.encode(sentence).ids.tolist())
        texts.setdefault(ids, set()).add(tuple(sentence.split()))
    _, _, batches = read_pass(source, 7, 3)
    batches = batches[: len(batches) // 2]
    chars = np.concatenate([batch["inputs"]["chars"] for batch in batches], axis=2).swapaxes(0, 1)
    tokens = np.concatenate([batch["inputs"]["tokens"] for batch in batches], axis=2).swapaxes(0, 1)
    assert chars.dtype == np.int32
    unknown = 0
    for axis, lane in itertools.product(range(2), range(3)):
        spelled, ids = [spell(row) for row in chars[axis, lane]], tokens[axis, lane].tolist()
        begins = [place for place, token in enumerate(ids) if token == (tokenizer.bos_id, tokenizer.eos_id)[axis]]
        for start, end in itertools.pairwise(begins):
            words, written = ids[start + 1 : end], spelled[start + 1 : end]
            if axis:
                words, written = words[::-1], written[::-1]
            assert tuple(written) in texts[tuple(words)]
            unknown += words.count(tokenizer.unk_id)
        assert spelled[begins[0]] == ("<S>", "</S>")[axis]
    assert unknown > 20


def spell(row):
    """The word of a row of character ids."""
    known = {tuple(characters.word_chars(word).tolist()): word for word in ("<S>", "</S>")}
    if tuple(row.tolist()) in known:
        return known[tuple(row.tolist())]
    inside = row.tolist()
    assert inside[0] == 258 and 259 in inside
    return bytes(inside[1 : inside.index(259)]).decode()


def test_unknown_words_across_window_bounds(tmp_path):
    """Every word of every sentence unknown, windows shorter and longer than sentences: each keeps its own spelling."""
    tokenizer = Words(["<S>", "</S>", "<UNK>", "known"])
    lengths, records, number = [1, 2, 5, 3, 9, 1], [], 0
    for document, size in enumerate(lengths):
        words = [f"w{number + place}" for place in range(size)]
        number += size
        records += corpus.sections(document, [[tokenizer.unk_id] * size], [words])
    corpus.write_shard(tmp_path / "train-00000-of-00001.array_record", records)
    corpus.finish(tmp_path, tokenizer, {"train": ["train-00000-of-00001.array_record"]})
    for length in (1, 2, 4, 27):
        source = Source(tmp_path, length=length)
        _, _, batches = read_pass(source, 0, 1)
        chars = np.concatenate([batch["inputs"]["chars"] for batch in batches], axis=2)
        for axis, stream in enumerate(source._both(0, 0)):
            expected = []
            for sentence in stream.order.tolist():
                words = source.corpus.read(sentence, sentence + 1)[1]
                expected += ["</S>", *words[::-1]] if axis else ["<S>", *words]
            spelled = [spell(row) for row in chars[0, axis]]
            assert spelled == expected[: len(spelled)]


def test_permutation_is_uniform_over_sentences():
    # Which of 6 sentences comes first, over many passes.
    first = [int(draws.permutation(draws.key("stream", "forward", 0, number), 6)[0]) for number in range(3000)]
    assert stats.chisquare(np.bincount(first, minlength=6)).pvalue > 1e-4


def test_mistakes_are_one_sentence(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.source\.corpus is empty"):
        Source()
    with pytest.raises(ConfigError, match="is not one of both, forward"):
        Source(folder, directions="backward")
    with pytest.raises(ConfigError, match="length >= 1"):
        Source(folder, length=0)
    with pytest.raises(ConfigError, match=r"lower config\.batch_size"):
        Source(folder).steps_per_pass(10**6)
    generated.write_corpus(tmp_path, "wordpiece", count=5)
    with pytest.raises(ConfigError, match="needs a corpus made with --tokenizer words"):
        Source(tmp_path)

"""Running text in lanes: every token once and in order, both ways, lengths by the published law."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import generated_corpus
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources.running import Source

LANES, SEED = 16, 3


@pytest.fixture(scope="module")
def folder():
    return generated_corpus("words")


def text_of(source):
    """The corpus as one list: sentences as they stand, the end mark behind each."""
    corpus, text = source.corpus, []
    for number in range(corpus.num_sentences):
        text += [*corpus.read(number, number + 1)[0].tolist(), source.tokenizer.eos_id]
    return np.array(text[::-1] if source.direction == "backward" else text)


def passes(source, count, seed=SEED):
    """Batches of whole passes, told apart by `is_first`."""
    found, step = [], 0
    while True:
        batch = batch_at(source, seed, LANES, step)
        assert len(set(batch["is_first"])) == 1
        if batch["is_first"][0]:
            if len(found) == count:
                return found
            found.append([])
        found[-1].append(batch)
        step += 1


def joined(batches, name):
    """What all windows of a pass hold, `[lanes, pairs]`."""
    parts = []
    for batch in batches:
        used = int(batch["weights"][0].sum())
        np.testing.assert_array_equal(batch["weights"], np.arange(batch["weights"].shape[1])[None] < [[used]] * LANES)
        np.testing.assert_array_equal(batch["inputs"]["mask"], batch["weights"] > 0)
        leaf = batch["inputs"]["tokens"] if name == "tokens" else batch["targets"]
        assert not leaf[:, used:].any()
        parts.append(leaf[:, :used])
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("variable", [True, False], ids=["drawn", "fixed"])
def test_each_pass_reads_every_lane_from_end_to_end(folder, direction, variable):
    source = Source(folder, length=16, variable=variable, direction=direction)
    text = text_of(source)
    assert len(text) == source.tokens
    lanes = text[: len(text) // LANES * LANES].reshape(LANES, -1)  # utils.py, batchify
    for batches in passes(source, 2):
        told = joined(batches, "tokens").shape[1]
        assert told == lanes.shape[1] - 1 or (variable and told == lanes.shape[1] - 2)  # one pair alone is not read
        np.testing.assert_array_equal(joined(batches, "tokens"), lanes[:, :told])
        np.testing.assert_array_equal(joined(batches, "targets"), lanes[:, 1 : told + 1])


def test_windows_have_one_shape_and_lengths_that_change_with_pass_and_seed(folder):
    source = Source(folder, length=20)
    lengths = [[int(b["weights"][0].sum()) for b in batches] for batches in passes(source, 2)]
    other = [int(b["weights"][0].sum()) for b in passes(source, 1, seed=4)[0]]
    assert lengths[0] != lengths[1] and lengths[0] != other
    assert {b["targets"].shape for batches in passes(source, 1) for b in batches} == {(LANES, 48)}
    first = [int(b[0]["weights"][0].sum()) for b in passes(Source(folder, length=20, longest_first=True), 3)]
    assert first == [45, 45, 45]
    assert source.steps_per_pass(LANES) == pytest.approx(np.mean([len(one) for one in lengths]), rel=0.1)


def test_the_law_of_lengths_is_that_of_the_published_draw(folder):
    """main.py: `max(5, int(np.random.normal(bptt, 5)))`, bptt 70 or, one time in twenty, 35."""
    source = Source(folder, length=70)
    assert source.law.sum() == pytest.approx(1) and source.longest == 95 and source.length == 96
    rng = np.random.default_rng(0)
    base = np.where(rng.random(400_000) < 0.95, 70.0, 35.0)
    drawn = np.maximum(5, rng.normal(base, 5).astype(int))
    assert source.mean_length == pytest.approx(drawn.mean(), abs=0.1)
    cut = np.diff(source._cut(SEED, 0, 1_000_000))[:-1]
    for lengths in (drawn, cut):
        share = np.bincount(lengths, minlength=96)[:96] / len(lengths)
        assert (np.abs(share - source.law) <= 5 * np.sqrt(source.law / len(lengths)) + 1e-4).all()


def test_the_shortest_length_is_five(folder):
    source = Source(folder, length=8)
    assert not source.law[:5].any() and source.law[5] > 0.1


def test_held_out_text_is_read_in_windows_of_one_length(folder):
    source = Source(folder, "heldout", length=16)
    assert not source.variable and source.length == 16
    pairs = source.tokens // LANES - 1
    assert source.steps_per_pass(LANES) == -(-pairs // 16)
    assert source.fingerprint["direction"] == "forward"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"direction": "both"}, "config.source.direction='both' is not one of forward, backward"),
        ({"length": 2}, "config.source.length=2 is not at least 5"),
        ({"corpus": ""}, "config.source.corpus is empty"),
    ],
)
def test_mistakes_are_named(folder, fields, message):
    with pytest.raises(ConfigError, match=message):
        Source(**({"corpus": folder} | fields))


def test_more_lanes_than_text_are_refused(folder):
    with pytest.raises(ConfigError, match=r"too few for config.batch_size=100000 lanes"):
        Source(folder).steps_per_pass(100_000)

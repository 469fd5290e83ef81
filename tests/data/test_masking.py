"""Masking: how many, which, what instead; whole words against a plain-Python oracle."""

import numpy as np
import pytest
from scipy import stats

from ctxjax.data import draws
from ctxjax.data.transforms.masking import mask_rows

VOCAB, MASK, CLS, SEP, T, P = 50, 4, 2, 3, 64, 10


def make_rows(count, seed=0, low=5, words=VOCAB):
    """Rows `[CLS] A [SEP] B [SEP]` of many lengths, padded with 0."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, T + 1, count)
    tokens, candidates = np.zeros((count, T), np.int32), np.zeros((count, T), bool)
    for row, length in enumerate(lengths):
        tokens[row, :length] = rng.integers(5, words, length)
        middle = rng.integers(2, length - 1) if length > 4 else 2
        candidates[row, :length] = True
        for place, piece in ((0, CLS), (middle, SEP), (length - 1, SEP)):
            tokens[row, place], candidates[row, place] = piece, False
    return tokens, lengths, candidates


def keys_of(count, name="test"):
    return draws.bits(draws.key(name), np.arange(count))


def masked_rows(rows, name="test", **options):
    options = {"vocab_size": VOCAB, "mask_id": MASK, "max_predictions": P} | options
    return mask_rows(*rows, keys_of(len(rows[0]), name), **options)


def test_number_order_and_place():
    rows = make_rows(2000)
    tokens, lengths, candidates = rows
    masked = masked_rows(rows)
    for row in range(len(tokens)):
        count = min(P, max(1, round(int(lengths[row]) * 0.15)), int(candidates[row].sum()))
        assert masked.weights[row].tolist() == [1.0] * count + [0.0] * (P - count)
        positions = masked.positions[row, :count]
        assert (np.diff(positions) > 0).all() and candidates[row, positions].all()
        assert (masked.targets[row, :count] == tokens[row, positions]).all()
        assert not masked.positions[row, count:].any() and not masked.targets[row, count:].any()
        untouched = np.ones(T, bool)
        untouched[positions] = False
        assert (masked.tokens[row, untouched] == tokens[row, untouched]).all()


def test_halves_are_rounded_as_published():
    # Python rounds 0.15 * 10 = 1.5 to 2 and 0.15 * 30 = 4.5 to 4; so do the rows.
    for length in (10, 30, 50):
        tokens, lengths, candidates = make_rows(1, low=T)
        lengths[:] = length
        candidates[:, length:] = False
        assert masked_rows((tokens, lengths, candidates)).weights.sum() == round(length * 0.15)


def test_eighty_ten_ten_from_the_entire_vocabulary():
    rows = make_rows(12_000, seed=1, low=50)
    masked = masked_rows(rows)
    real = masked.weights > 0
    targets = masked.targets[real]
    shown = np.take_along_axis(masked.tokens, masked.positions, axis=1)[real]
    n = len(targets)
    assert n > 80_000
    # A random piece may be the mask piece or the original one by chance: 1 / VOCAB of a tenth each.
    for share, count in (
        (0.8 + 0.1 / VOCAB, (shown == MASK).sum()),
        (0.1 + 0.1 / VOCAB, (shown == targets).sum()),
        (0.1 * (1 - 2 / VOCAB), ((shown != MASK) & (shown != targets)).sum()),
    ):
        low, high = stats.binom(n, share).interval(1 - 1e-6)
        assert low <= count <= high, share
    # The random pieces are uniform over the whole vocabulary, the special ones included (seen where they are neither
    # the mask piece nor the original; originals are uniform over the pieces from 5 on).
    others = np.bincount(shown[(shown != MASK) & (shown != targets)], minlength=VOCAB).astype(float)
    expected = np.where(np.arange(VOCAB) < 5, 1.0, 1 - 1 / (VOCAB - 5))
    expected[MASK] = 0
    keep = np.arange(VOCAB) != MASK
    expected *= others.sum() / expected.sum()
    assert others[MASK] == 0 and stats.chisquare(others[keep], expected[keep]).pvalue > 1e-4


def test_positions_are_uniform():
    tokens, lengths, candidates = make_rows(1, seed=2, low=T)
    many = tuple(np.repeat(part, 20_000, axis=0) for part in (tokens, lengths, candidates))
    masked = masked_rows(many)
    counts = np.bincount(masked.positions[masked.weights > 0], minlength=T)
    assert not counts[~candidates[0]].any()
    assert stats.chisquare(counts[candidates[0]]).pvalue > 1e-4


def test_a_mask_is_a_function_of_its_key_alone():
    tokens, lengths, candidates = make_rows(100, seed=3)
    whole = masked_rows((tokens, lengths, candidates))
    keys = keys_of(100)
    order = np.random.default_rng(0).permutation(100)
    options = {"vocab_size": VOCAB, "mask_id": MASK, "max_predictions": P}
    mixed = mask_rows(tokens[order], lengths[order], candidates[order], keys[order], **options)
    for ours, theirs in zip(mixed, whole):
        assert (ours == theirs[order]).all()
    other = masked_rows((tokens, lengths, candidates), "another key")
    assert (other.positions != whole.positions).any(axis=1).mean() > 0.9


def whole_words(tokens, candidates, continues, order, number):
    """Groups of pieces in the order of their first piece's draw, a group that does not fit being skipped."""
    groups = []
    for place in np.flatnonzero(candidates).tolist():
        if continues[tokens[place]] and groups:
            groups[-1].append(place)
        else:
            groups.append([place])
    taken = []
    for group in sorted(groups, key=lambda group: order[group[0]]):
        if len(taken) >= number:
            break
        if len(taken) + len(group) <= number:
            taken += group
    return sorted(taken)


def test_whole_words_against_the_oracle():
    rows = make_rows(1500, seed=4)
    tokens, lengths, candidates = rows
    continues = np.zeros(VOCAB, bool)
    continues[VOCAB // 2 :] = True  # half the pieces, so words are long, cross [SEP], and often do not fit
    masked = masked_rows(rows, continues=continues)
    order_keys = draws.bits(keys_of(1500), np.zeros(1500, np.int64))
    partial = 0
    for row in range(1500):
        order = draws.bits(int(order_keys[row]), np.arange(T))
        number = min(P, max(1, round(int(lengths[row]) * 0.15)))
        expected = whole_words(tokens[row], candidates[row], continues, order, number)
        assert masked.positions[row, : len(expected)].tolist() == expected
        assert masked.weights[row].sum() == len(expected)
        partial += len(expected) < number
    assert partial > 50  # the quirk that fewer than the number are predicted is exercised
    actions = np.take_along_axis(masked.tokens, masked.positions, axis=1) == MASK
    per_row = (actions & (masked.weights > 0)).sum(1)[masked.weights.sum(1) >= 4]
    assert (per_row % 4 != 0).any()  # decided for each piece on its own


@pytest.mark.parametrize("whole_word", [False, True])
def test_more_wanted_than_there_is(whole_word):
    # [CLS] x [SEP] y [SEP], 1 of 2 candidates; then a cap wider than the row.
    tokens = np.array([[CLS, 7, SEP, 8, SEP, 0]], np.int32)
    candidates = np.array([[False, True, False, True, False, False]])
    continues = np.zeros(VOCAB, bool) if whole_word else None
    masked = masked_rows((tokens, np.array([5]), candidates), mask_prob=0.9, max_predictions=9, continues=continues)
    assert masked.positions.tolist() == [[1, 3, 0, 0, 0, 0, 0, 0, 0]] and masked.weights.sum() == 2

"""Measures of coreference: the example worked out by Pradhan et al. 2014, definitions, every pairing tried."""

import itertools
import random

import pytest

from ctxjax.evaluators import clusters

KEY, RESPONSE = ("abc", "defg"), ("ab", "cd", "fghi")


def test_the_example_of_the_reference_scorers_paper():
    """Pradhan et al. 2014, section 4: recall, precision and F1 of each."""
    muc = clusters.muc(RESPONSE, KEY)
    assert (muc.recall, muc.precision, muc.f1) == pytest.approx((2 / 5, 2 / 5, 0.40))
    cubed = clusters.b_cubed(RESPONSE, KEY)
    assert cubed.recall == pytest.approx((4 / 3 + 1 / 3 + 1 / 4 + 4 / 4) / 7)
    assert cubed.precision == pytest.approx((4 / 2 + 1 / 2 + 1 / 2 + 4 / 4) / 8)
    assert (cubed.recall, cubed.precision) == pytest.approx((0.42, 0.50), abs=0.005)
    ceaf = clusters.ceaf(RESPONSE, KEY)
    assert (ceaf.recall, ceaf.precision, ceaf.f1) == pytest.approx((0.65, 0.43, 0.52), abs=0.005)
    found = clusters.scores([(RESPONSE, KEY)])
    assert found["f1"] == pytest.approx((40 + 100 * cubed.f1 + 100 * ceaf.f1) / 3)


def test_examples_of_vilain_1995():
    """Key {A B C D}: a chain in two halves misses one of three links, one of two mentions misses two."""
    assert clusters.muc(["AB", "CD"], ["ABCD"])[:2] == (2.0, 3.0)
    assert clusters.muc(["AB", "CD"], ["ABCD"])[2:] == (2.0, 2.0)
    assert clusters.muc(["AB"], ["ABCD"])[:2] == (1.0, 3.0)
    assert clusters.muc(["ABCD"], ["AB", "CD"]) == (2.0, 2.0, 2.0, 3.0)


def test_the_example_of_bagga_and_baldwin_1998():
    """Joining the large chains costs more than joining a large and a small one; by MUC both are the same."""
    key = ["12345", "67", "89abc"]
    one, two = ["12345", "6789abc"], ["1234589abc", "67"]
    assert clusters.muc(one, key).precision == clusters.muc(two, key).precision == pytest.approx(0.9)
    assert clusters.b_cubed(one, key).precision == pytest.approx(16 / 21)
    assert clusters.b_cubed(two, key).precision == pytest.approx(7 / 12)
    assert clusters.b_cubed(one, key).recall == clusters.b_cubed(two, key).recall == 1.0


def drawn(draw, mentions):
    some = draw.sample(mentions, draw.randint(0, len(mentions)))
    found = {}
    for mention in some:
        found.setdefault(draw.randint(0, 3), []).append(mention)
    return list(found.values())


def test_random_partitions_by_the_definitions():
    draw = random.Random(0)
    for _ in range(200):
        told, there = drawn(draw, range(9)), drawn(draw, range(9))
        cubed = clusters.b_cubed(told, there)
        sides = {}
        for name, ours, theirs in (("recall", there, told), ("precision", told, there)):
            shares = []
            for cluster in ours:
                for mention in cluster:
                    other = next((set(one) for one in theirs if mention in one), set())
                    shares.append(len(other & set(cluster)) / len(cluster))
            sides[name] = sum(shares) / len(shares) if shares else 0.0
        assert (cubed.recall, cubed.precision) == pytest.approx((sides["recall"], sides["precision"]))
        few, many = sorted((told, there), key=len)
        best = 0.0
        for order in itertools.permutations(many, len(few)):
            pairs = zip(few, order)
            best = max(best, sum(2 * len(set(a) & set(b)) / (len(a) + len(b)) for a, b in pairs))
        assert clusters.ceaf(told, there) == pytest.approx((best, len(there), best, len(told)))
        assert clusters.muc(there, told) == tuple(clusters.muc(told, there)[place] for place in (2, 3, 0, 1))


def test_documents_are_summed_not_averaged():
    found = clusters.scores([(["ab"], ["ab"]), (["xy"], ["wxyz"])])
    assert found["muc_recall"] == pytest.approx(100 * 2 / 4)
    assert clusters.scores([(KEY, KEY)])["f1"] == pytest.approx(100.0)
    assert clusters.scores([([], KEY)])["f1"] == 0.0 == clusters.scores([(KEY, [])])["f1"] == clusters.scores([])["f1"]

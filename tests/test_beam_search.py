"""Beam search: against every target there is, against the plainest search, and greedy decoding without a cache."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.beam_search import penalty, search
from ctxjax.config import ConfigError
from ctxjax.inference import Batch
from ctxjax.models import transformer

STOP, START, VOCAB = 0, 1, 5
SOURCES = [np.array([3, 1, 4, STOP]), np.array([2, STOP]), np.array([1, 1, 2, 3, 4, 4, 2, 1, 3, STOP])]


def made(scale, **changes):
    model = transformer.tiny().clone(**{"vocab_size": VOCAB, **changes})
    inputs = {name: jnp.zeros((1, 4), jnp.int32) for name in ("tokens", "decoder_tokens")}
    params = jax.jit(lambda: model.init(jax.random.key(1), inputs, method="touch"))()["params"]
    keys = iter(jax.random.split(jax.random.key(7), 200))
    params = jax.tree.map(lambda leaf: leaf + scale * jax.random.normal(next(keys), leaf.shape), params)
    table = params["embed"]["tokens"]["embedding"]  # a tied table likes to repeat what was read
    params["embed"]["tokens"]["embedding"] = table.at[jnp.array([STOP, START])].multiply(0.2)
    return model, params


@pytest.fixture(scope="module")
def small():
    return made(0.2)


@functools.partial(jax.jit, static_argnums=0)
def whole_log_probs(model, params, inputs):
    hidden = model.apply({"params": params}, inputs).hidden[-1][0]
    return jax.nn.log_softmax(hidden @ params["embed"]["tokens"]["embedding"].T)


def next_log_probs(model, params, source, target):
    """By the whole model, without a cache, everything padded to one length."""
    tokens, given = np.zeros((2, 1, 24), np.int32)
    tokens[0, : len(source)], given[0, : len(target) + 1] = source, [START, *target]
    inputs = {"tokens": tokens, "mask": np.arange(24)[None] < len(source), "decoder_tokens": given}
    return np.asarray(whole_log_probs(model, params, inputs)[len(target)], np.float64)


def plain_search(log_probs, beam, alpha, count):
    """Lists of (target, log-probability); 2 K candidates a step, until no finished target can be overtaken."""
    alive, ended = [((), 0.0)], []
    for step in range(1, count + 1):
        found = [((*target, w), p + q) for target, p in alive for w, q in enumerate(log_probs(target))]
        found = sorted(found, key=lambda item: -item[1])[: 2 * beam]
        ended += [(target, p / penalty(step, alpha)) for target, p in found if target[-1] == STOP]
        ended = sorted(ended, key=lambda item: -item[1])[:beam]
        alive = [item for item in found if item[0][-1] != STOP][:beam]
        if len(ended) == beam and ended[-1][1] >= alive[0][1] / penalty(count, alpha):
            break
    return ended or [(target, p / penalty(count, alpha)) for target, p in alive]


def searched(model, params, sources, **options):
    found = dict(search(model, params, sources, start=START, stop=STOP, **options))
    return [found[index] for index in range(len(sources))]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_beam_that_holds_everything_finds_the_best_of_all(small, alpha, monkeypatch):
    """16 prefixes of two tokens, so 80 candidates; all 21 targets of at most three, end mark included, are scored."""
    model, params = small
    monkeypatch.setattr("ctxjax.beam_search.plan", lambda lengths, *_: [Batch([0], 1, lengths[0])])
    source, count, beam = SOURCES[1], 3, 40
    scores = {}
    known = {target: next_log_probs(model, params, source, target) for n in range(count) for target in words(n)}
    for length in range(count):
        for target in words(length):
            whole = (*target, STOP)
            total = sum(known[whole[:place]][whole[place]] for place in range(len(whole)))
            scores[target] = total / penalty(len(whole), alpha)
    best = sorted(scores.items(), key=lambda item: -item[1])
    got = searched(model, params, [source], beam=beam, alpha=alpha, more=count - len(source))[0]
    assert [tuple(one.ids.tolist()) for one in got] == [target for target, _ in best]
    np.testing.assert_allclose([one.score for one in got], [score for _, score in best], rtol=1e-4)


def words(length):
    return itertools.product(range(1, VOCAB), repeat=length)


@pytest.mark.parametrize(("beam", "pre_norm"), [(2, False), (4, True)])
def test_it_is_the_plain_search(beam, pre_norm):
    model, params = made(0.2, pre_norm=pre_norm)
    got = searched(model, params, SOURCES, beam=beam, alpha=0.6, more=6)
    differ = set()
    for source, found in zip(SOURCES, got):
        length = 8 if len(source) <= 8 else 16
        plain = plain_search(lambda target, s=source: next_log_probs(model, params, s, target), beam, 0.6, length + 6)
        assert [tuple(one.ids.tolist()) for one in found] == [
            tuple(w for w in target if w != STOP) for target, _ in plain
        ]
        np.testing.assert_allclose([one.score for one in found], [score for _, score in plain], rtol=1e-4)
        differ.add(tuple(tuple(one.ids.tolist()) for one in found))
    assert len(differ) > 1 and max(len(one) for found in differ for one in found) > 1


def test_one_beam_is_greedy_in_any_batch(small):
    model, params = small
    together = searched(model, params, SOURCES, beam=1, more=4)
    for source, (found,) in zip(SOURCES, together):
        target, length = [], (8 if len(source) <= 8 else 16) + 4
        while len(target) < length:
            token = int(next_log_probs(model, params, source, target).argmax())
            if token == STOP:
                break
            target.append(token)
        assert found.ids.tolist() == target
        (alone,) = searched(model, params, [source], beam=1, more=4)[0]
        assert alone.ids.tolist() == target


def test_what_never_ends_is_cut_at_the_limit():
    model, params = made(0.2)
    table = params["embed"]["tokens"]["embedding"]
    inputs = {"tokens": jnp.asarray(SOURCES[0])[None], "decoder_tokens": jnp.full((1, 1), START)}
    top = jax.jit(lambda: model.apply({"params": params}, inputs))().hidden[-1][0, 0]
    params["embed"]["tokens"]["embedding"] = table.at[STOP].set(-9.0 * top)
    found = searched(model, params, SOURCES[1:2], beam=2, more=2)[0]
    assert [len(one.ids) for one in found] == [10, 10] and found[0].score > found[1].score


def test_mistakes_are_named(small):
    with pytest.raises(ConfigError, match="beam >= 1"):
        searched(*small, SOURCES, beam=0)
    with pytest.raises(ConfigError, match="a token in every source"):
        searched(*small, [np.array([], int)])

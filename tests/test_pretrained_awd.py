"""AWD-LSTM in a notebook: vectors of unequal widths, probabilities both ways, continuations by the carried state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.interop.files import Published
from ctxjax.models import awd_lstm
from ctxjax.pretrained import Pretrained
from ctxjax.text.words import Words

WORDS = "the a cat dog sat on mat ran and .".split()
TEXTS = [["the", "cat", "sat", "."], ["a", "dog", "ran", "and", "the", "zebra", "."]]


def opened(direction):
    tokenizer = Words(["<S>", "</S>", "<UNK>", *WORDS], split="whitespace")
    config = {"name": "awd_lstm", "vocab_size": len(tokenizer), "width": 20, "embed_width": 12, "depth": 2}
    model = awd_lstm.Model(**{name: value for name, value in config.items() if name != "name"})
    inputs = {"tokens": jnp.zeros((1, 2), jnp.int32)}
    params = jax.jit(lambda: model.init(jax.random.key(1), inputs, method="touch")["params"])()
    params = jax.tree.map(lambda leaf: 4.0 * leaf, params)  # far from uniform
    meta = {"config": {"source": {"direction": direction}}}
    return Pretrained(Published(config, tree.flatten(params), tokenizer), direction, meta)


@pytest.fixture(scope="module")
def forward():
    return opened("forward")


@pytest.fixture(scope="module")
def backward():
    return opened("backward")


def outputs_of(model, ids):
    inputs = {"tokens": jnp.asarray([ids], jnp.int32)}
    return model.model.apply({"params": model.params}, inputs)


def log_probs(model, ids):
    """Of every token behind the first, from the module."""
    rows, table, bias = model.model.apply(
        {"params": model.params}, outputs_of(model, ids).hidden[-1][0, :-1], method="readout"
    )
    return np.asarray(jax.nn.log_softmax(rows @ table.T + bias[None]))[np.arange(len(ids) - 1), ids[1:]]


def test_what_it_can(forward, backward):
    assert forward.can == ("embed", "score", "score_next", "generate") and backward.can == ("embed", "score")
    with pytest.raises(ConfigError, match="backward cannot generate: it reads texts from their end"):
        backward.generate("the cat")


def test_layers_are_as_wide_as_the_widest(forward):
    found = forward.embed(TEXTS)
    for text, one in zip(TEXTS, found):
        hidden = outputs_of(forward, [1, *forward.tokenizer.encode_words(text).ids]).hidden
        assert one.words == text and one.layers.shape == (3, len(text), 20)
        for layer, want in zip(one.layers, hidden):
            np.testing.assert_allclose(layer[:, : want.shape[-1]], want[0, 1:], atol=1e-5)
            assert not layer[:, want.shape[-1] :].any()
    [top] = forward.embed(TEXTS[:1], layers="top")
    assert top.layers.shape == (1, 4, 12)


def test_a_score_is_the_chain_rule(forward):
    ids = [[1, *forward.tokenizer.encode_words(text).ids] for text in TEXTS]
    wanted = [log_probs(forward, row).sum() for row in ids]
    np.testing.assert_allclose(forward.score(TEXTS), wanted, rtol=1e-5)
    np.testing.assert_allclose(forward.score(TEXTS, per_token=True), [wanted[0] / 4, wanted[1] / 7], rtol=1e-5)
    assert forward.score(" ".join(TEXTS[0]))[0] == pytest.approx(wanted[0], rel=1e-5)


def test_backwards_is_the_text_turned_round(forward, backward):
    turned = [text[::-1] for text in TEXTS]
    np.testing.assert_allclose(backward.score(TEXTS), forward.score(turned), rtol=1e-5)
    assert not np.allclose(backward.score(TEXTS), forward.score(TEXTS))
    for ours, theirs in zip(backward.embed(TEXTS), forward.embed(turned)):
        np.testing.assert_allclose(ours.layers, theirs.layers[:, ::-1], atol=1e-5)
        assert ours.words == theirs.words[::-1]
    [pieces] = backward.embed(TEXTS[:1], align="piece")
    assert pieces.words == [*TEXTS[0], "</S>"] and pieces.layers.shape[1] == 5


def test_generation_carries_the_state(forward):
    """Greedy, of prompts of unequal length: every word is the most probable one after all that stands before it."""
    made = forward.generate(TEXTS, 3, temperature=0.0)
    for text, continuation in zip(TEXTS, made):
        ids = [1, *forward.tokenizer.encode_words(text).ids.tolist()]
        words = []
        while len(words) < 3:
            top = outputs_of(forward, ids).hidden[-1][0, -1:]
            rows, table, bias = forward.model.apply({"params": forward.params}, top, method="readout")
            ids.append(int((rows @ table.T + bias[None])[0].argmax()))
            if ids[-1] == forward.tokenizer.eos_id:
                break
            words.append(forward.tokenizer.pieces[ids[-1]])
        assert continuation == " ".join(words)
    assert made[0] or made[1]

"""NNLM against its equation in NumPy, word by word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import nnlm

KEY = jax.random.key(0)


def made(**fields):
    model = nnlm.tiny().clone(**fields)
    tokens = jax.random.randint(KEY, (2, 9), 1, model.vocab_size)
    params = model.init(KEY, {"tokens": tokens}, method="touch")["params"]
    return model, tokens, params


def logits(model, params, tokens, carry=()):
    outputs = model.apply({"params": params}, {"tokens": tokens}, carry)
    top = outputs.hidden[-1]
    rows, table, bias = model.apply({"params": params}, top.reshape(-1, top.shape[-1]), method="readout")
    return np.asarray(rows @ table.T + bias[None]).reshape(*tokens.shape, -1), outputs.carry


@pytest.mark.parametrize("direct", [True, False])
def test_the_equation_of_the_paper(direct):
    model, tokens, params = made(direct=direct)
    flat = {name: np.asarray(leaf, np.float64) for name, leaf in tree.flatten(params).items()}
    found, _ = logits(model, params, tokens)
    table = flat["head/softmax/embedding"]
    u, w = table[:, : model.mlp_dim], table[:, model.mlp_dim :]
    for row in range(2):
        text = [0] * model.context + np.asarray(tokens[row]).tolist()
        for place in range(9):
            words = text[place + 1 : place + 1 + model.context][::-1]  # the nearest first
            x = np.concatenate([flat["embed/tokens/embedding"][word] for word in words])
            y = flat["head/softmax/bias"] + u @ np.tanh(flat["layer_0/in/bias"] + x @ flat["layer_0/in/kernel"])
            y = y + (w @ x if direct else 0.0)
            np.testing.assert_allclose(found[row, place], y, atol=1e-5)


def test_the_published_number_of_parameters():
    """Section 2: |V| (1 + n m + h) + h (1 + (n - 1) m), with n m = m of the table and (n - 1) m direct connections."""
    model = nnlm.Model()
    params = jax.eval_shape(lambda: model.init(KEY, {"tokens": jnp.zeros((1, 2), jnp.int32)}, method="touch")["params"])
    words, m, h, n = 16_383, 30, 100, 5
    assert tree.count(params) == words * (1 + n * m + h) + h * (1 + (n - 1) * m)


def test_two_halves_are_the_whole():
    model, tokens, params = made()
    whole, end = logits(model, params, tokens, model.init_carry(2))
    first, carry = logits(model, params, tokens[:, :2], model.init_carry(2))
    second, last = logits(model, params, tokens[:, 2:], carry)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-6)
    np.testing.assert_array_equal(last["tokens"], end["tokens"])
    np.testing.assert_array_equal(end["tokens"], tokens[:, -model.context :])


def test_sees_so_many_words_and_no_more():
    model, _, params = made()
    table = params["embed"]["tokens"]["embedding"]

    def value(rows):
        changed = {**params, "embed": {"tokens": {"embedding": rows}}}
        return model.apply({"params": changed}, {"tokens": jnp.arange(1, 10)[None]}).hidden[-1][0, 5].sum()

    seen = np.flatnonzero(np.abs(jax.grad(value)(table)).max(axis=1) > 0)
    assert seen.tolist() == [4, 5, 6]

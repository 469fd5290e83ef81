"""The scalar mix against the formulae in NumPy: shares, gamma, one mean and variance for a batch, several mixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models import taglm
from ctxjax.models.layers.mix import EPSILON, Mix
from ctxjax.objectives import tagging
from ctxjax.step import Forward
from ctxjax.text import tags

MASK = np.arange(5)[None] < np.array([5, 3, 1])[:, None]


def oracle(stack, mask, weights, gamma, normalise):
    """As bilm-tf: every layer by itself, over words that there are and all their features."""
    shares = np.exp(weights) / np.exp(weights).sum()
    total = 0.0
    for layer, share in enumerate(shares):
        one = stack[:, :, layer].astype(np.float64)
        if normalise:
            there = one[mask]
            one = (one - there.mean()) / np.sqrt(there.var() + EPSILON)
        total = total + share * one
    return gamma * total


@pytest.mark.parametrize("normalise", [False, True])
def test_the_formula(normalise):
    rng = np.random.default_rng(0)
    stack = rng.normal(2.0, 3.0, (3, 5, 4, 6)).astype(np.float32) * np.arange(1, 5)[None, None, :, None]
    params = {"weights": jnp.array([0.3, -1.0, 2.0, 0.0]), "gamma": jnp.array(1.7)}
    mix = Mix(4, normalise)
    apart = lambda stack: [jnp.asarray(stack[:, :, layer], jnp.float32) for layer in range(4)]
    found = mix.apply({"params": params}, apart(stack), jnp.asarray(MASK))
    expected = oracle(stack, MASK, np.array([0.3, -1.0, 2.0, 0.0]), 1.7, normalise)
    np.testing.assert_allclose(np.asarray(found)[MASK], expected[MASK], rtol=2e-5, atol=2e-5)
    noise = np.where(MASK[:, :, None, None], stack, 100.0)  # words behind a sentence are in no mean
    again = mix.apply({"params": params}, apart(noise), jnp.asarray(MASK))
    np.testing.assert_allclose(np.asarray(again)[MASK], np.asarray(found)[MASK], rtol=1e-5)


def test_fresh_is_the_plain_average():
    layers = list(jax.random.normal(jax.random.key(0), (4, 2, 3, 5)))
    variables = Mix(4).init(jax.random.key(1), layers)
    np.testing.assert_allclose(Mix(4).apply(variables, layers), np.mean(layers, axis=0), atol=1e-6)


def tagger(**fields):
    given = {"labels": tags.known_tags(("A",), "BIO"), "scheme": "BIO", "width": 4, "embed_width": 3, "chars": "none"}
    model = taglm.Model(vocab_size=7, **given | {"features": 6, "feature_layers": 4} | fields)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = {
        "inputs": {
            "tokens": jax.random.randint(keys[0], (3, 5), 0, 7),
            "mask": jnp.asarray(MASK),
            "features": jax.random.normal(keys[1], (3, 5, 4, 6)),
        },
        "targets": jax.random.randint(keys[2], (3, 5), 0, len(model.labels)),
        "weights": jnp.asarray(MASK, jnp.float32),
    }
    return model, batch, jax.jit(lambda: model.init(jax.random.key(1), batch["inputs"], method="touch"))()["params"]


def hidden_of(model, params, inputs):
    return jax.jit(lambda params, inputs: model.apply({"params": params}, inputs).hidden)(params, inputs)


def test_several_mixes_at_the_bottom_and_at_the_top():
    model, batch, params = tagger(features_at=(0, 2))
    assert model.widths() == (3 + 6, 8, 8 + 6) and {"mix_0", "mix_2"} <= set(params) and not model.couples_rows
    params = dict(params, mix_0={"weights": jnp.arange(4.0), "gamma": jnp.array(2.0)})
    hidden = hidden_of(model, params, batch["inputs"])
    stack = np.asarray(batch["inputs"]["features"])
    expected = oracle(stack, MASK, np.arange(4.0), 2.0, False)
    np.testing.assert_allclose(np.asarray(hidden[0])[MASK][:, 3:], expected[MASK], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(hidden[2])[MASK][:, 8:], stack.mean(2)[MASK], rtol=1e-5, atol=1e-6)
    objective = tagging.Objective(mix_l2=0.1)
    raw = Forward(model, params, jax.random.key(0), train=True).head("mix")
    assert raw.tolist() == [0, 1, 2, 3, 0, 0, 0, 0]

    @jax.jit
    def terms_of(params):
        return objective(Forward(model, params, jax.random.key(0), train=True), batch, ())[0]

    terms = terms_of(params)
    assert terms["mix"].compute() == pytest.approx(0 + 1 + 4 + 9) and objective.loss == {"crf": 1.0, "mix": 0.1}


def test_layers_side_by_side_have_no_mix():
    model, batch, params = tagger(features_at=(0,), combine="concat", embed_width=0)
    assert model.widths()[0] == 24 and not any(name.startswith("mix") for name in params)
    hidden = hidden_of(model, params, batch["inputs"])[0]
    stack = np.asarray(batch["inputs"]["features"]).reshape(3, 5, 24)
    np.testing.assert_allclose(np.asarray(hidden)[MASK], stack[MASK])


def test_normalised_over_the_batch_couples_its_rows():
    model, batch, params = tagger(features_at=(0,), mix_norm=True)
    assert model.couples_rows
    whole = hidden_of(model, params, batch["inputs"])[0]
    alone = hidden_of(model, params, {name: leaf[:1] for name, leaf in batch["inputs"].items()})[0]
    assert np.abs(whole[0] - alone[0]).max() > 1e-3


def test_words_apart():
    """Without a CRF: the cross-entropy of each word, and its best tag."""
    model, batch, params = tagger(features_at=(0,), crf=False, depth=1)
    assert "crf" not in params["head"]

    @jax.jit
    def told_by(params):
        forward = Forward(model, params, jax.random.key(0), train=False)
        terms, _ = tagging.Objective(crf=False)(forward, batch, ())
        return terms, forward.head("scores", forward(batch["inputs"]).hidden[-1])

    terms, scores = told_by(params)
    scores = np.asarray(scores, np.float64)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    targets = np.asarray(batch["targets"])
    told = np.take_along_axis(logs, targets[:, :, None], -1)[:, :, 0]
    assert terms["word"].compute() == pytest.approx(-told[MASK].mean(), rel=1e-5)
    assert terms["words_accuracy"].compute() == pytest.approx((scores.argmax(-1) == targets)[MASK].mean())
    with pytest.raises(ValueError, match="this tagger has no head 'crf'; it has 'scores', 'tags', 'mix'"):
        tagging.Objective()(Forward(model, params, jax.random.key(0), train=False), batch, ())

"""TagLM: where the language models' vectors go in, what each direction sees, both kinds of cells and characters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import taglm
from ctxjax.text import characters, tags

LENGTHS = np.array([6, 4, 1])
WORDS = "Anna of Bergen saw it .".split()
VARIANTS = [
    ("gru", "cnn"),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("lstm", "gru"), ("gru", "none"))),
]


def example(features=0, seed=0, **fields):
    model = taglm.tiny().clone(features=features, **fields)
    rng = np.random.default_rng(seed)
    chars = np.full((3, 6, model.max_chars), characters.PAD, np.int32)
    for row, length in enumerate(LENGTHS):
        chars[row, :length] = characters.table(WORDS[:length], model.max_chars)
    inputs = {
        "tokens": rng.integers(0, model.vocab_size, (3, 6)).astype(np.int32),
        "chars": chars,
        "mask": np.arange(6)[None] < LENGTHS[:, None],
        "features": rng.normal(size=(3, 6, features)).astype(np.float32),
    }
    inputs = {name: jnp.asarray(value) for name, value in inputs.items() if features or name != "features"}
    return model, jax.jit(lambda: model.init(jax.random.key(1), inputs, method="touch"))()["params"], inputs


def test_features_are_joined_to_the_output_of_the_first_layer():
    model, params, inputs = example(features=3)
    changed = dict(inputs, features=inputs["features"].at[0, 2].add(1.0))
    one, two = (model.apply({"params": params}, which).hidden for which in (inputs, changed))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1][..., :16], two[1][..., :16])
    np.testing.assert_array_equal(one[1][inputs["mask"]][:, 16:], inputs["features"][inputs["mask"]])
    moved = np.abs(one[2] - two[2]).max(-1)
    assert (moved[0] > 1e-6).all() and not moved[1:].any()  # both directions carry it through the sentence
    flat = tree.flatten(params)
    assert flat["layer_0/rnn/input_kernel"].shape[1] == 5 + 6 and flat["layer_1/rnn/input_kernel"].shape[1] == 2 * 8 + 3


def test_features_that_are_missing_are_named():
    model, params, inputs = example(features=3)
    with pytest.raises(ValueError, match=r"model\.features=3 needs inputs.features"):
        model.apply({"params": params}, {name: value for name, value in inputs.items() if name != "features"})
    with pytest.raises(ValueError, match=r"of 0 to model\.depth=2"):
        model.clone(features_at=(3,)).apply({"params": params}, inputs)


@pytest.mark.parametrize(("cell", "chars"), VARIANTS)
def test_each_direction_sees_its_side_alone(cell, chars):
    model, params, inputs = example(cell=cell, chars=chars)
    first = lambda tokens: model.apply({"params": params}, dict(inputs, tokens=tokens)).hidden[1]
    at = 2
    moved = np.abs(first(inputs["tokens"]) - first(inputs["tokens"].at[0, at].add(1) % model.vocab_size))[0].max(-1)
    assert (moved > 1e-7).all()
    both = first(inputs["tokens"]) - first(inputs["tokens"].at[0, at].set((inputs["tokens"][0, at] + 1) % 31))
    forward, backward = np.split(np.abs(both)[0], 2, axis=-1)
    assert not forward[:at].any() and (forward[at:].max(-1) > 0).all()
    assert not backward[at + 1 :].any() and (backward[: at + 1].max(-1) > 0).all()


@pytest.mark.parametrize(("cell", "chars"), VARIANTS)
def test_rows_padding_and_gradients(cell, chars):
    """A row alone is that row in its batch, without any padding, too; every parameter has a finite gradient."""
    model, params, inputs = example(cell=cell, chars=chars)
    whole = model.apply({"params": params}, inputs).hidden
    for row, length in enumerate(LENGTHS):
        alone = {name: value[row : row + 1, :length] for name, value in inputs.items()}
        for with_mask in (True, False):
            given = alone if with_mask else {name: value for name, value in alone.items() if name != "mask"}
            for one, two in zip(model.apply({"params": params}, given).hidden, whole):
                np.testing.assert_allclose(one[0], two[row, :length], atol=2e-6)

    def loss(params):
        return model.apply({"params": params}, inputs, method="touch").sum()

    for name, gradient in tree.flatten(jax.grad(loss)(params)).items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name


def test_characters_of_the_gru_end_with_the_word():
    """The vector of a word is the same however much padding stands behind it."""
    model, params, inputs = example(chars="gru")
    wide = model.clone(max_chars=20)
    more = jnp.pad(inputs["chars"], [(0, 0), (0, 0), (0, 8)], constant_values=characters.PAD)
    one = model.apply({"params": params}, inputs).hidden[0]
    two = wide.apply({"params": params}, dict(inputs, chars=more)).hidden[0]
    np.testing.assert_allclose(one[inputs["mask"]], two[inputs["mask"]], atol=1e-6)


def test_the_published_tagger_of_names_has_its_parameters():
    """By the formulae of a GRU with two biases for its candidate, of the table, the scores and the chain."""
    labels = tags.known_tags(("LOC", "MISC", "ORG", "PER"), "BIOES")
    model = taglm.Model(vocab_size=1000, labels=labels)
    inputs = {"tokens": jnp.zeros((1, 2), jnp.int32), "chars": jnp.zeros((1, 2, 50), jnp.int32)}
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"])
    gru = lambda inputs, width: 2 * (3 * width * (inputs + width + 1) + width)
    expected = 1000 * 50 + 261 * 25 + gru(25, 80) + gru(160 + 50, 300) + gru(600, 300)
    assert tree.count(params) == expected + 17 * (600 + 1) + 17 * 17 + 2 * 17


def test_constrained_paths_keep_to_the_scheme():
    model, params, inputs = example(constrained="always")
    free = model.clone(constrained="never")
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(10):
        top = jnp.asarray(5 * rng.normal(size=(3, 6, 16)), jnp.float32)
        for one in (model, model.clone(constrained="decoding"), free):
            best = one.apply({"params": params}, "tags", top, inputs["mask"], method="head")
            for row, length in zip(np.asarray(best).tolist(), LENGTHS):
                try:
                    tags.spans([model.labels[tag] for tag in row[:length]], "BIOES")
                except tags.Broken:
                    assert one is free
                    broken += 1
    assert broken > 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cell": "rnn"}, "model.cell='rnn' is none of"),
        ({"chars": "rnn"}, "model.chars='rnn' is none of"),
        ({"labels": ("O",)}, "are not two tags"),
        ({"scheme": "", "constrained": "always"}, "model.constrained='always' needs model.crf and model.scheme=''"),
        ({"embed_width": 0, "chars": "none"}, "leave nothing to read"),
    ],
)
def test_mistakes_are_named(fields, message):
    model, params, inputs = example()
    with pytest.raises(ValueError, match=message):
        model.clone(**fields).apply({"params": params}, inputs)

"""The tagger's head on an encoder: its paths, words apart or in a chain, and only told words matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import downstream
from ctxjax.objectives import tagging
from ctxjax.step import Forward

SIZES = {"vocab_size": 31, "width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 16, "max_len": 12}


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "chain"])
def made(request):
    model = downstream.Model(
        encoder={"name": "bert", **SIZES}, task="tag", labels=tuple("abc"), options={"chain": request.param}
    )
    keys = jax.random.split(jax.random.key(0), 2)
    mask = jnp.arange(7)[None] < jnp.array([7, 4])[:, None]
    batch = {
        "inputs": {"tokens": jax.random.randint(keys[0], (2, 7), 0, 31), "mask": mask},
        "targets": jax.random.randint(keys[1], (2, 7), 0, 3),
        "weights": (mask & (jnp.arange(7) % 2 == 1)[None]).astype(jnp.float32),  # first pieces: here every other one
    }
    params = jax.jit(lambda: model.init(jax.random.key(1), batch["inputs"], method="touch"))()["params"]
    return model, params, batch, request.param


def test_loss_and_tags_of_told_words_alone(made):
    model, params, batch, chain = made
    of_chain = [f"task/tag/crf/{name}" for name in ("end", "start", "transitions")] if chain else []
    paths = [name for name in tree.flatten(params) if name.startswith("task/")]
    assert paths == ["task/tag/bias", *of_chain, "task/tag/kernel"]
    objective = tagging.Objective(crf=chain)

    @jax.jit
    def terms(params, batch):
        return objective(Forward(model, params, jax.random.key(0), train=False), batch, ())[0]

    one = terms(params, batch)
    other = dict(batch, targets=jnp.where(batch["weights"] > 0, batch["targets"], 0))
    two = terms(params, other)
    assert jax.tree.all(jax.tree.map(np.array_equal, one, two))
    name = "crf" if chain else "word"
    assert float(one[name].weight) == (2 if chain else 5)
    forward = Forward(model, params, jax.random.key(0), train=False)
    top = forward(batch["inputs"]).hidden[-1]
    scores = np.asarray(forward.head("scores", top), np.float64)
    flat = tree.flatten(params)
    expected = np.asarray(top, np.float64) @ np.asarray(flat["task/tag/kernel"]) + np.asarray(flat["task/tag/bias"])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    counted = np.asarray(batch["weights"]) > 0
    if not chain:
        logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        told = np.take_along_axis(logs, np.asarray(batch["targets"])[:, :, None], -1)[:, :, 0]
        assert one["word"].compute() == pytest.approx(-told[counted].mean(), rel=1e-5)
    tags = np.asarray(forward.head("tags", top, batch["weights"] > 0))
    assert np.array_equal(tags[counted], scores.argmax(-1)[counted])  # a fresh chain says nothing
    assert not tags[~counted].any()


def test_a_chain_that_is_missing_is_named(made):
    model, params, batch, chain = made
    if chain:
        pytest.skip("it has one")
    with pytest.raises(ValueError, match=r"set model\.options\.chain, or objective\.crf=False"):
        tagging.Objective()(Forward(model, params, jax.random.key(0), train=False), batch, ())

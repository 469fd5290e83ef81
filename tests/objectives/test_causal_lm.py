"""The left-to-right objective: what smoothing minimises, and what it leaves as it is."""

import jax
import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.objectives import causal_lm
from ctxjax.step import Forward, weighted_loss


def test_smoothing_is_minimised_and_the_likelihood_is_still_reported():
    model, plain, batch = causal_lm.example()
    smooth = causal_lm.Objective(label_smoothing=0.1)
    params = model.init(jax.random.key(0), batch["inputs"], method="touch")["params"]
    forward = Forward(model, params, jax.random.key(1), train=False)
    one, two = plain(forward, batch, ())[0], smooth(forward, batch, ())[0]
    assert float(one["lm"].total) == float(two["lm"].total) and "smoothed" not in one
    hidden = model.apply({"params": params}, batch["inputs"]).hidden[-1]
    log_probs = np.asarray(jax.nn.log_softmax(hidden @ params["embed"]["tokens"]["embedding"].T))
    labels = np.full(log_probs.shape, 0.1 / (model.vocab_size - 1))
    np.put_along_axis(labels, np.asarray(batch["targets"])[..., None], 0.9, axis=-1)
    divergence = (labels * (np.log(labels) - log_probs)).sum(-1)
    wanted = (divergence * batch["weights"]).sum() / batch["weights"].sum()
    assert float(weighted_loss(smooth, two, smooth.weights(batch))) == pytest.approx(float(wanted), rel=1e-5)
    assert smooth.loss == {"smoothed": 1.0} and plain.loss == {"lm": 1.0}


def test_a_share_of_one_or_more_is_refused():
    with pytest.raises(ConfigError, match="label_smoothing=1"):
        causal_lm.Objective(label_smoothing=1.0)

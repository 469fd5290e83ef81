"""GPT-2: the published counts, the initial deviations. What it shares with GPT is in test_causal.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import gpt2

KEY = jax.random.key(0)
TOKENS = {"tokens": jnp.zeros((1, 8), jnp.int32)}


@pytest.mark.parametrize(
    ("width", "depth", "heads", "count"),
    [
        (768, 12, 12, 124_439_808),
        (1024, 24, 16, 354_823_168),
        (1280, 36, 20, 774_030_080),
        (1600, 48, 25, 1_557_611_200),
    ],
)
def test_parameter_counts_are_the_published_ones(width, depth, heads, count):
    model = gpt2.Model(width=width, depth=depth, num_heads=heads, mlp_dim=4 * width)
    assert tree.count(jax.eval_shape(lambda: model.init(KEY, TOKENS, method="touch")["params"])) == count


@pytest.mark.parametrize(("scaled", "deviation"), [(True, 0.02 / np.sqrt(6)), (False, 0.02)])
def test_initial_deviations(scaled, deviation):
    model = gpt2.Model(400, width=64, depth=3, num_heads=2, mlp_dim=128, max_len=64, scaled_residuals=scaled)
    params = tree.flatten(model.init(KEY, TOKENS, method="touch")["params"])
    for name, leaf in params.items():
        if name.endswith(("kernel", "embedding")):
            wanted = deviation if name.endswith("out/kernel") else 0.01 if "positions" in name else 0.02
            assert float(leaf.std()) == pytest.approx(wanted, rel=0.06), name
        else:
            assert (leaf == (1 if name.endswith("scale") else 0)).all(), name

"""The vocabulary loss against the plain formula, and the sampled softmax against what it estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.objectives import vocabulary

KEY = jax.random.key(0)
N, D, V = 23, 6, 40


def example(dtype=jnp.float32):
    keys = jax.random.split(KEY, 4)
    rows, table = jax.random.normal(keys[0], (N, D)).astype(dtype), jax.random.normal(keys[1], (V, D))
    bias, targets = jax.random.normal(keys[2], (V,)), jax.random.randint(keys[3], (N,), 0, V)
    return rows, table, bias, targets, jnp.linspace(0.0, 2.0, N)


def plain(rows, table, bias, targets, weights):
    logits = rows.astype(jnp.float32) @ table.T + bias[None]
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], 1)[:, 0]
    return (weights * nll).sum(), (weights * (logits.argmax(1) == targets)).sum()


@pytest.mark.parametrize("chunk", [0, 1, 5, 8, 23, 100])
def test_value_hits_and_gradient_are_exact_for_every_chunk(chunk):
    args = example()
    scaled = lambda function: lambda *args: 3.0 * function(*args)[0]
    ours = lambda *args: vocabulary.cross_entropy(*args, chunk)
    for one, two in zip(ours(*args), plain(*args)):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    assert float(ours(*args)[1]) > 0
    value, gradients = jax.jit(jax.value_and_grad(scaled(ours), argnums=(0, 1, 2)))(*args)
    np.testing.assert_allclose(value, 3.0 * plain(*args)[0], rtol=1e-6)
    for one, two in zip(gradients, jax.grad(scaled(plain), argnums=(0, 1, 2))(*args)):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_padding_of_the_vocabulary_changes_nothing_and_gets_no_gradient():
    rows, table, bias, targets, weights = example()
    wide = jnp.concatenate([table, jnp.ones((3, D))]), jnp.concatenate([bias, jnp.full(3, -jnp.inf)])
    loss = lambda rows, table, bias: vocabulary.cross_entropy(rows, table, bias, targets, weights, 8)
    for one, two in zip(loss(rows, *wide), loss(rows, table, bias)):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    gradients = jax.grad(lambda *args: loss(*args)[0], argnums=(0, 1, 2))(rows, *wide)
    expected = jax.grad(lambda *args: loss(*args)[0], argnums=(0, 1, 2))(rows, table, bias)
    for one, two in zip(gradients, expected):
        np.testing.assert_allclose(one[: len(two)], two, atol=1e-6)
        assert not one[len(two) :].any()


def test_it_is_exact_where_logits_are_large():
    rows, table, bias, targets, weights = example()
    for scale in (30.0, 3000.0):
        args = (rows * scale, table, bias, targets, weights)
        np.testing.assert_allclose(vocabulary.cross_entropy(*args)[0], plain(*args)[0], rtol=1e-5)
        gradient = jax.grad(lambda *args: vocabulary.cross_entropy(*args)[0], argnums=1)(*args)
        np.testing.assert_allclose(
            gradient, jax.grad(lambda *args: plain(*args)[0], argnums=1)(*args), atol=3e-5 * scale
        )


def test_bfloat16_rows_give_close_values_and_gradients_of_their_own_types():
    args = example(jnp.bfloat16)
    value, gradients = jax.value_and_grad(lambda *a: vocabulary.cross_entropy(*a)[0], argnums=(0, 1, 2))(*args)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    np.testing.assert_allclose(value, plain(*args)[0], rtol=0.01)
    for one, two in zip(gradients, jax.grad(lambda *a: plain(*a)[0], argnums=(0, 1, 2))(*args)):
        np.testing.assert_allclose(one.astype(jnp.float32), two.astype(jnp.float32), atol=0.06)


def largest(jaxpr):
    """Elements of the largest array anywhere in a program."""
    sizes = [var.aval.size for equation in jaxpr.eqns for var in equation.outvars]
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
    return max(sizes, default=0)


def test_it_never_holds_the_logits_of_all_rows():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 4), (1000, 4), (1000,))]
    integers, weights = jax.ShapeDtypeStruct((64,), jnp.int32), jax.ShapeDtypeStruct((64,), jnp.float32)
    loss = jax.value_and_grad(lambda *args: vocabulary.cross_entropy(*args, 8)[0], argnums=(0, 1, 2))
    assert largest(jax.make_jaxpr(loss)(*shapes, integers, weights).jaxpr) == 8 * 1000
    whole = jax.value_and_grad(lambda *args: plain(*args)[0], argnums=(0, 1, 2))
    assert largest(jax.make_jaxpr(whole)(*shapes, integers, weights).jaxpr) == 64 * 1000


def test_the_law_of_candidates_is_log_uniform():
    p = np.exp(np.asarray(vocabulary.log_uniform(1000), np.float64))
    assert p.sum() == pytest.approx(1.0, abs=1e-4)
    k = np.arange(1000)
    np.testing.assert_allclose(p, (np.log(k + 2) - np.log(k + 1)) / np.log(1001), rtol=1e-4)


def test_candidates_are_distinct_and_as_frequent_as_drawing_until_enough_differ():
    count, samples, times = 50, 12, 4000
    ids, log_expected = jax.vmap(lambda key: vocabulary.draw(key, count, samples))(jax.random.split(KEY, times))
    ids = np.asarray(ids)
    assert all(len(set(row)) == samples for row in ids[:200].tolist())
    share = np.bincount(ids.ravel(), minlength=count) / times
    # TensorFlow's sampler: draw with replacement, throw repeats away, until there are enough.
    rng, p = np.random.default_rng(0), np.exp(np.asarray(vocabulary.log_uniform(count), np.float64))
    theirs = np.zeros(count)
    for _ in range(times):
        drawn = dict.fromkeys(rng.choice(count, 400, p=p / p.sum()).tolist())
        theirs[list(drawn)[:samples]] += 1 / times
    noise = np.sqrt(2 * share * (1 - share) / times) + 1e-3
    assert (np.abs(share - theirs) < 5 * noise).all()
    # The chance that the correction uses is, on average, how often a word is drawn.
    np.testing.assert_allclose(np.exp(np.asarray(log_expected, np.float64)).mean(0), share, atol=0.03)


def test_the_corrected_sum_over_candidates_is_an_unbiased_partition():
    count, samples, times = 60, 15, 20_000
    values = np.exp(np.asarray(jax.random.normal(KEY, (count,)), np.float64))
    ids, log_expected = jax.vmap(lambda key: vocabulary.draw(key, count, samples))(jax.random.split(KEY, times))
    chance = np.take_along_axis(np.exp(np.asarray(log_expected, np.float64)), np.asarray(ids), 1)
    estimates = (values[np.asarray(ids)] / chance).sum(1)
    assert abs(estimates.mean() - values.sum()) < 5 * estimates.std() / np.sqrt(times)


def sampled(samples, key, rows, table, bias, targets, weights):
    return vocabulary.sampled_cross_entropy(
        rows, table, bias, targets, weights, *vocabulary.draw(key, table.shape[0], samples)
    )


def test_with_all_words_as_candidates_it_is_the_full_softmax():
    args = example()
    loss = lambda *args: sampled(V, KEY, *args)
    np.testing.assert_allclose(loss(*args), plain(*args)[0], rtol=1e-6)
    for one, two in zip(jax.grad(loss, (0, 1, 2))(*args), jax.grad(lambda *a: plain(*a)[0], (0, 1, 2))(*args)):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_its_gradient_vanishes_on_average_at_the_true_probabilities():
    # What the correction is for: where the model's probabilities are those of the targets, there is nothing to learn.
    count, samples = 60, 15
    logits = jax.random.normal(KEY, (count,)) - 0.05 * jnp.arange(count)
    chance, targets = jax.nn.softmax(logits), jnp.arange(count)
    nothing = jnp.zeros((count, 1))

    def mean_gradient(corrected: bool):
        def loss(bias, key):
            ids, log_expected = vocabulary.draw(key, count, samples)
            log_expected = log_expected if corrected else jnp.zeros(count)
            return vocabulary.sampled_cross_entropy(nothing, nothing, bias, targets, chance, ids, log_expected)

        return jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(logits, jax.random.split(KEY, 4000))

    right, wrong = mean_gradient(True), mean_gradient(False)
    noise = np.asarray(right.std(0) / np.sqrt(4000))
    assert float(jnp.linalg.norm(wrong.mean(0))) > 0.1
    assert float(jnp.linalg.norm(right.mean(0))) < 0.01 + 2 * np.linalg.norm(noise)


def test_its_mean_gradient_nears_the_full_one_as_candidates_grow():
    args = example()
    full = jax.grad(lambda *a: plain(*a)[0], 1)(*args)
    errors = []
    for samples in (8, 30, 39):
        gradient = jax.vmap(lambda key: jax.grad(lambda *a: sampled(samples, key, *a), 1)(*args))  # noqa: B023
        mean = jax.jit(gradient)(jax.random.split(KEY, 500)).mean(0)
        errors.append(float(jnp.linalg.norm(mean - full) / jnp.linalg.norm(full)))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.08


def test_an_accidental_hit_is_removed():
    rows, table, bias = jnp.zeros((1, D)), jnp.zeros((V, D)), jnp.zeros(V)
    negatives, certain = jnp.array([3, 5, 7]), jnp.zeros(V)
    loss = lambda target: vocabulary.sampled_cross_entropy(
        rows, table, bias, jnp.array([target]), jnp.ones(1), negatives, certain
    )
    assert float(loss(5)) == pytest.approx(np.log(3))  # itself and two others
    assert float(loss(6)) == pytest.approx(np.log(4))


def soft_labels(targets, share, spared):
    """The labels written out, `[N V]`."""
    labels = np.full((N, V), share / (V - (1 if spared < 0 else 2)))
    if spared >= 0:
        labels[:, spared] = 0
    labels[np.arange(N), targets] = 1 - share
    return labels


@pytest.mark.parametrize("spared", [-1, 3])
def test_smoothing_is_the_divergence_from_soft_labels(spared):
    rows, table, bias, targets, weights = example()
    targets = jnp.where(targets == 3, 4, targets)
    labels = soft_labels(np.asarray(targets), 0.1, spared)
    np.testing.assert_allclose(labels.sum(1), 1)
    entropy = -np.where(labels > 0, labels * np.log(np.maximum(labels, 1e-9)), 0).sum(1)

    def oracle(rows, table, bias):
        log_probs = jax.nn.log_softmax(rows @ table.T + bias[None])
        return (weights * (-(labels * log_probs).sum(1) - entropy)).sum()

    def ours(rows, table, bias):
        args = (rows, table, bias, targets, weights)
        return vocabulary.cross_entropy(*args, 5)[0] + vocabulary.smoothing(*args, 0.1, spared)

    value, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2)))(rows, table, bias)
    np.testing.assert_allclose(value, oracle(rows, table, bias), rtol=1e-5)
    for one, two in zip(gradients, jax.grad(oracle, argnums=(0, 1, 2))(rows, table, bias)):
        np.testing.assert_allclose(one, two, atol=3e-5)
    wide = jnp.concatenate([table, jnp.ones((3, D))]), jnp.concatenate([bias, jnp.full(3, -jnp.inf)])
    value, gradients = jax.value_and_grad(ours, argnums=(0, 1, 2))(rows, *wide)
    np.testing.assert_allclose(value, oracle(rows, table, bias), rtol=1e-5)
    assert not gradients[1][V:].any() and not gradients[2][V:].any()


def test_smoothing_is_torchs():
    """`label_smoothing` of torch divides the share among all V words: that of V - 1 is V / (V - 1) times as large."""
    torch = pytest.importorskip("torch")
    rows, table, bias, targets, weights = example()
    logits = torch.tensor(np.asarray(rows @ table.T + bias[None]))
    wanted = torch.nn.functional.cross_entropy(
        logits, torch.tensor(np.asarray(targets)).long(), reduction="none", label_smoothing=0.1 * V / (V - 1)
    )
    args = (rows, table, bias, targets, weights)
    got = vocabulary.cross_entropy(*args)[0] + vocabulary.smoothing(*args, 0.1)
    entropy = -0.9 * np.log(0.9) - 0.1 * np.log(0.1 / (V - 1))
    np.testing.assert_allclose(got, (np.asarray(weights) * (wanted.numpy() - entropy)).sum(), rtol=1e-5)


def test_smoothing_forms_no_logits():
    rows, table, bias, targets, weights = example()
    program = jax.make_jaxpr(lambda *a: vocabulary.smoothing(*a, targets, weights, 0.1))(rows, table, bias)
    assert largest(program.jaxpr) < N * V

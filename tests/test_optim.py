"""Every optimiser against NumPy written from the original code, and the groups by regex."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import optim, tree
from ctxjax.config import ConfigError
from ctxjax.step import TrainState

STEPS, LR, TOTAL = 6, 0.05, 20
SHAPES = {
    "embed/tokens/embedding": (7, 4),
    "embed/norm/scale": (4,),
    "layer_0/attention/query/kernel": (4, 4),
    "layer_0/attention/query/bias": (4,),
    "layer_0/attention_norm/bias": (4,),
    "head/mlm/bias": (7,),
}
DECAYED = {"embed/tokens/embedding", "layer_0/attention/query/kernel"}
SCHEDULE = {"name": "warmup_linear", "warmup": "2 steps"}


def arrays(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def run(steps=STEPS, **fields):
    """Parameters after some updates with made-up gradients, by our optimiser under jit."""
    params = jax.tree.map(jnp.asarray, tree.unflatten(arrays(0)))
    tx, _ = optim.make_optimizer(TOTAL, params, **({"lr": LR, "schedule": SCHEDULE} | fields))
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(steps):
        updates, state = update(tree.unflatten(arrays(100 + step, scale=3.0)), state, params)
        params = optax.apply_updates(params, updates)
    return tree.flatten(params), state


def oracle(rule, clip=None, steps=STEPS):
    """The same in float64 NumPy; `rule(name, gradient, parameter, slots, step) -> update`."""
    params = {name: value.astype(np.float64) for name, value in arrays(0).items()}
    slots = {name: {} for name in params}
    for step in range(steps):
        gradient = {name: value.astype(np.float64) for name, value in arrays(100 + step, scale=3.0).items()}
        norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
        factor = min(1.0, clip / norm) if clip else 1.0
        lr = LR * step / 2 if step < 2 else LR * (1 - step / TOTAL)
        for name in params:
            params[name] = params[name] - lr * rule(name, factor * gradient[name], params[name], slots[name], step)
    return params


def moments(gradient, slots):
    slots["m"] = 0.9 * slots.get("m", 0.0) + 0.1 * gradient
    slots["v"] = 0.999 * slots.get("v", 0.0) + 0.001 * gradient**2
    return slots["m"], slots["v"]


def adam_bert(name, gradient, param, slots, step):
    m, v = moments(gradient, slots)
    return m / (np.sqrt(v) + 1e-6) + (0.01 * param if name in DECAYED else 0.0)


def adam_gpt(name, gradient, param, slots, step):
    m, v = moments(gradient, slots)
    factor = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
    return factor * (m / (np.sqrt(v) + 1e-8) + (0.01 * param if name in DECAYED else 0.0))


def corrected(name, gradient, param, slots, step, eps, weight_decay):
    m, v = moments(gradient, slots)
    m, v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
    return m / (np.sqrt(v) + eps) + (weight_decay * param if name in DECAYED else 0.0)


def lamb(name, gradient, param, slots, step, adapt_excluded=False):
    update = corrected(name, gradient, param, slots, step, 1e-6, 0.01)
    if name in DECAYED or adapt_excluded:
        return update * np.linalg.norm(param) / np.linalg.norm(update)
    return update


def adagrad(name, gradient, param, slots, step):
    slots["a"] = slots.get("a", 1.0) + gradient**2
    return gradient / np.sqrt(slots["a"])


def momentum(name, gradient, param, slots, step):
    slots["t"] = 0.9 * slots.get("t", 0.0) + gradient
    return slots["t"]


def row_clipped(name, gradient, param, slots, step):
    if gradient.ndim < 2:
        return gradient
    return gradient * np.minimum(1.0, 4.0 / np.linalg.norm(gradient, axis=-1, keepdims=True))


def glove(name, gradient, param, slots, step):
    """The accumulator is read before this step's gradient is added; biases neither clip nor shrink."""
    bias = name.endswith("bias")
    gradient = gradient if bias else np.clip(gradient, -2.0, 2.0)
    before = slots.get("g", 1.0)
    slots["g"] = before + (gradient if bias else 0.05 * gradient) ** 2
    return gradient / np.sqrt(before)


CASES = {
    "adam_bert": (adam_bert, 1.0, {"weight_decay": 0.01}),
    "adam_gpt": (adam_gpt, 1.0, {"weight_decay": 0.01}),
    "adamw": (functools.partial(corrected, eps=1e-8, weight_decay=0.1), None, {"weight_decay": 0.1}),
    "lamb": (lamb, 1.0, {"weight_decay": 0.01}),
    "lamb/nvlamb": (
        functools.partial(lamb, adapt_excluded=True),
        1.0,
        {"weight_decay": 0.01, "adapt_excluded": True},
    ),
    "adagrad": (adagrad, 10.0, {}),
    "adagrad_glove": (glove, None, {"limit": 2.0}),
    "sgd": (lambda name, gradient, *_: gradient, None, {}),
    "sgd/rows": (row_clipped, None, {"row_clip": 4.0}),
    "sgd/momentum": (momentum, 1.0, {"momentum": 0.9}),
    "ntasgd": (lambda name, gradient, *_: gradient, 1.0, {"metric": "heldout/lm"}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_numpy(case):
    rule, clip, fields = CASES[case]
    ours, _ = run(name=case.partition("/")[0], clip=clip, **fields)
    for name, value in oracle(rule, clip).items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


def test_every_rule_has_a_case():
    assert set(optim.RULES) == {case.partition("/")[0] for case in CASES}


def test_adam_bert_has_no_bias_correction():
    """With one gradient after a zero-rate step, m/(sqrt v) is near 0.19/sqrt(0.002) of its sign, not 1."""
    params = {"w": jnp.zeros((1,))}
    constant = {"name": "constant"}
    tx, _ = optim.make_optimizer(10, params, name="adam_bert", lr=1.0, schedule=constant)
    updates, _ = tx.update({"w": jnp.ones((1,))}, tx.init(params), params)
    assert float(updates["w"][0]) == pytest.approx(-0.1 / (0.001**0.5 + 1e-6), rel=1e-5)


def test_pre_normalisation_makes_lamb_blind_to_the_gradient_scale():
    params = {"w": jnp.full((3,), 2.0)}
    tx, _ = optim.make_optimizer(
        10, params, name="lamb", lr=1.0, schedule={"name": "constant"}, eps=1.0, decay_exclude="", pre_normalize=True
    )
    one, two = (tx.update({"w": scale * jnp.arange(3.0)}, tx.init(params), params)[0]["w"] for scale in (1e-3, 1e3))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert np.all(np.isfinite(tx.update({"w": jnp.zeros((3,))}, tx.init(params), params)[0]["w"]))


@pytest.mark.parametrize("name", optim.RULES)
def test_slots_mirror_the_parameters(name):
    """Each non-scalar leaf of the state has the path and the shape of a parameter, which sharding relies on."""
    _, state = run(steps=1, name=name, clip=1.0, weight_decay=0.01)
    for path, leaf in tree.flatten(state).items():
        if leaf.ndim:
            owner = next(parameter for parameter in SHAPES if path.endswith(parameter))
            assert leaf.shape == SHAPES[owner]
        else:
            assert path.endswith("count") or name == "ntasgd"


def test_published_parameters_decay():
    groups = optim.param_groups(arrays(0))
    assert {name for name, group in groups.items() if group.decay} == DECAYED


def test_frozen_parameters_stay_and_have_no_slots():
    start, clipped = arrays(0), 1.0
    ours, state = run(name="adam_bert", weight_decay=0.01, clip=clipped, frozen="^embed/")
    assert all(np.array_equal(ours[name], start[name]) == name.startswith("embed/") for name in ours)
    assert not any("embed/" in path for path in tree.flatten(state))


def test_the_clip_sees_trained_parameters_alone():
    """A frozen embedding with a huge gradient leaves the others' update as it would be without it."""
    params = {"embed": jnp.ones((2,)), "w": jnp.ones((2,))}
    gradient = {"embed": jnp.full((2,), 1e6), "w": jnp.array([0.3, 0.4])}
    tx, _ = optim.make_optimizer(
        10, params, name="sgd", lr=1.0, schedule={"name": "constant"}, clip=1.0, frozen="^embed$"
    )
    updates, _ = tx.update(gradient, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.3, -0.4], rtol=1e-6)
    np.testing.assert_array_equal(updates["embed"], [0.0, 0.0])


def test_lr_multipliers_first_match_wins():
    rules = (("^embed/", 0.5), ("bias$", 0.0), (".*", 1.0))
    plain, _ = run(steps=3, name="sgd")
    scaled, _ = run(steps=3, name="sgd", lr_multipliers=rules)
    for name, before in arrays(0).items():
        factor = 0.5 if name.startswith("embed/") else 0.0 if name.endswith("bias") else 1.0
        np.testing.assert_allclose(scaled[name] - before, factor * (plain[name] - before), rtol=1e-4, atol=1e-6)


def test_works_on_abstract_parameters():
    params = tree.unflatten({name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()})
    tx, lr = optim.make_optimizer(TOTAL, params, name="lamb", lr=LR, schedule=SCHEDULE, weight_decay=0.01)
    assert tree.count(jax.eval_shape(tx.init, params)) == 2 * tree.count(params) + 2
    assert float(lr(1)) == pytest.approx(LR / 2)


def published_trigger(values, window):
    """salesforce/awd-lstm-lm main.py: the index of the evaluation at which SGD gives way to ASGD, or None."""
    best_val_loss = []
    for index, val_loss in enumerate(values):
        if len(best_val_loss) > window and val_loss > min(best_val_loss[:-window]):
            return index
        best_val_loss.append(val_loss)
    return None


def averaging(window=5, **fields):
    params = {"w": jnp.array([1.0, -2.0])}
    constant = {"name": "constant"}
    tx, _ = optim.make_optimizer(10, params, name="ntasgd", lr=0.5, schedule=constant, window=window, **fields)
    return tx, TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def stepped(tx, state, gradient):
    updates, opt_state = tx.update({"w": jnp.asarray(gradient)}, state.opt_state, state.params)
    return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("seed", range(6))
def test_averaging_begins_where_the_published_code_switches(window, seed):
    rng = np.random.default_rng(seed)
    values = (5 - 0.3 * np.minimum(np.arange(30), 8) + 0.5 * rng.standard_normal(30)).astype(np.float32)
    _, state = averaging(window)
    began = None
    for index, value in enumerate(values):
        state = optim.on_eval(state, {"heldout/lm": float(value), "heldout/lm_accuracy": 0.0})
        if began is None and int(tree.flatten(state.opt_state)["5/steps"]) == 0:
            began = index
    assert began == published_trigger(values, window)
    assert began is not None or window == 5


def test_the_average_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((7, 2)).astype(np.float32)
    tx, state = averaging(window=0, weight_decay=0.1, decay_exclude="")
    theirs = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    asgd = torch.optim.ASGD([theirs], lr=0.5, t0=0, lambd=0.0, weight_decay=0.1)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        asgd.step()
        state = stepped(tx, state, gradient)
        np.testing.assert_allclose(state.params["w"], theirs.detach().numpy(), rtol=1e-5)
        averaged = optim.eval_params(state.opt_state, state.params)["w"]
        np.testing.assert_allclose(averaged, asgd.state[theirs]["ax"].numpy(), rtol=1e-5)


def test_the_average_is_of_what_was_trained_after_the_switch_but_one():
    """NumPy: after k steps the mean of iterates 2 to k, and before the switch the parameters themselves."""
    tx, state = averaging(window=1)
    iterates = []
    for step in range(8):
        state = stepped(tx, state, np.array([0.1 * step, 1.0], np.float32))
        if step < 3:
            np.testing.assert_array_equal(optim.eval_params(state.opt_state, state.params)["w"], state.params["w"])
            state = optim.on_eval(state, {"heldout/lm": [2.0, 1.0, 3.0][step]})
        else:
            iterates.append(np.asarray(state.params["w"]))
    averaged = optim.eval_params(state.opt_state, state.params)["w"]
    np.testing.assert_allclose(averaged, np.mean(iterates[1:], axis=0), rtol=1e-5)
    leaves = {f"opt_state/{name}": leaf for name, leaf in tree.flatten(state.opt_state).items()}
    np.testing.assert_array_equal(optim.exported({**leaves, "params/w": state.params["w"]})["params/w"], averaged)


def test_an_evaluation_without_the_metric_is_named():
    _, state = averaging()
    assert optim.on_eval(state, {}) is not None
    with pytest.raises(ConfigError, match=r"config.optim.metric='heldout/lm' is no metric; did you mean 'heldout/mlm'"):
        optim.on_eval(state, {"heldout/mlm": 1.0})


def test_the_rate_of_one_step_scales_its_update_behind_the_clip():
    params = {"w": jnp.zeros((2,))}
    tx, _ = optim.make_optimizer(10, params, name="sgd", lr=1.0, schedule={"name": "constant"}, clip=1.0)
    gradient = {"w": jnp.array([30.0, 40.0])}
    updates, _ = tx.update(gradient, tx.init(params), params, rate=jnp.float32(0.25))
    np.testing.assert_allclose(updates["w"], [-0.15, -0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adam"}, "is no optimiser; did you mean 'adamw'"),
        ({"name": "adamw", "beta1": 0.9}, "config.optim.beta1 is not a field of 'adamw'"),
        ({"name": "adamw", "weight_decays": 0.1}, "did you mean 'weight_decay'"),
        ({"name": "sgd", "frozen": "encoder"}, "frozen='encoder' matches no parameter"),
        ({"name": "sgd", "frozen": "."}, "freezes every parameter"),
        ({"name": "sgd", "frozen": "("}, "not a regular expression"),
        ({"name": "adamw", "weight_decay": 0.1, "decay_exclude": "LayerNorm"}, "matches no parameter"),
        ({"name": "sgd", "lr_multipliers": (("^embed/", 0.1),)}, "covers no 'head/mlm/bias'"),
        ({"name": "sgd", "lr_multipliers": (("^encoder/", 0.1), (".", 1.0))}, "matches no parameter"),
        ({"name": "adagrad", "initial": 0.0}, "must be positive"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        run(steps=0, **fields)

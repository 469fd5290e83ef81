"""BERT's objective by hand: denominators, gathered positions, accuracies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import step
from ctxjax.objectives import masked_lm

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def made():
    model, objective, batch = masked_lm.example()
    return model, objective, batch, model.init(KEY, batch["inputs"], method="touch")["params"]


def test_terms_are_those_of_all_logits(made):
    model, objective, batch, params = made
    terms, carry = objective(step.Forward(model, params, KEY, train=False), batch)
    outputs = model.apply({"params": params}, batch["inputs"])
    rows, table, bias = model.apply({"params": params}, outputs.hidden[-1].reshape(-1, model.width), method="readout")
    logits = np.asarray(rows @ table.T + bias[None], np.float64).reshape(*batch["inputs"]["tokens"].shape, -1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = hits = 0.0
    for row in range(4):
        for slot in range(3):
            place, target = int(batch["target_positions"][row, slot]), int(batch["targets"][row, slot])
            weight = float(batch["weights"][row, slot])
            total -= weight * log_p[row, place, target]
            hits += weight * (log_p[row, place].argmax() == target)
    assert carry == ()
    np.testing.assert_allclose(terms["mlm"].total, total, rtol=1e-5)
    assert float(terms["mlm"].weight) == float(batch["weights"].sum()) == 7
    assert float(terms["mlm_accuracy"].total) == hits
    nsp = np.asarray(model.apply({"params": params}, "nsp", outputs.pooled, method="head"))
    real = np.asarray(batch["pair_weights"]) > 0
    nsp, labels = nsp[real], np.asarray(batch["is_random"])[real]
    nll = np.log(np.exp(nsp).sum(1)) - nsp[np.arange(6), labels]
    np.testing.assert_allclose(terms["nsp"].total, nll.sum(), rtol=1e-5)
    assert float(terms["nsp_accuracy"].total) == (nsp.argmax(1) == labels).sum()
    assert float(terms["nsp"].weight) == 6


def test_the_denominator_has_its_epsilon_and_nsp_counts_as_much(made):
    _, objective, batch, _ = made
    weights = objective.weights(batch)
    assert float(weights["mlm"]) == np.float32(7 + 1e-5) and float(weights["nsp"]) == 6
    assert objective.loss == {"mlm": 1.0, "nsp": 1.0}
    nothing = objective.weights({**batch, "weights": jnp.zeros((4, 3))})
    assert float(nothing["mlm"]) == np.float32(1e-5)


def alone(batch):
    """The examples of the batch, a row each: what a source that does not pack gives."""
    inputs, rows = batch["inputs"], []
    for row, slot in np.argwhere(np.asarray(batch["pair_weights"]) > 0):
        here = np.flatnonzero(np.asarray(inputs["pack_ids"][row]) == slot + 1)
        pad = lambda values, here=here: np.pad(np.asarray(values)[here], (0, 12 - len(here)))
        kept = np.isin(np.asarray(batch["target_positions"][row]), here) & (np.asarray(batch["weights"][row]) > 0)
        rows.append({
            "inputs": {
                **{name: pad(inputs[name][row]) for name in ("tokens", "segment_ids", "mask")},
                "cls_positions": np.zeros(1, np.int32),
            },
            "target_positions": np.where(kept, batch["target_positions"][row] - here[0], 0),
            "targets": np.asarray(batch["targets"][row]),
            "weights": kept.astype(np.float32),
            "is_random": np.asarray(batch["is_random"][row, slot]),
        })  # fmt: skip
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)


def test_a_packed_example_has_the_loss_of_the_same_example_alone(made):
    model, objective, batch, params = made
    forward = step.Forward(model, params, KEY, train=False)
    single = alone(batch)
    assert single["is_random"].shape == (6,) and "pair_weights" not in single
    packed, apart = objective(forward, batch)[0], objective(forward, single)[0]
    for name in packed:
        np.testing.assert_allclose(packed[name].total, apart[name].total, rtol=2e-6)
        assert float(packed[name].weight) == float(apart[name].weight)
    for name in objective.loss:
        assert float(objective.weights(single)[name]) == float(objective.weights(batch)[name])


def test_without_the_next_sentence(made):
    _, _, batch, _ = made
    from ctxjax.models import bert

    model, objective = bert.tiny().clone(next_sentence=False), masked_lm.Objective(next_sentence=False)
    params = model.init(KEY, batch["inputs"], method="touch")["params"]
    batch = {name: leaf for name, leaf in batch.items() if name not in ("is_random", "pair_weights")}
    terms, _ = objective(step.Forward(model, params, KEY, train=True), batch)
    assert set(terms) == {"mlm", "mlm_accuracy"} and set(objective.weights(batch)) == {"mlm"}


def test_flops_pay_for_the_gathered_positions_alone(made):
    model, objective, batch, _ = made
    shapes = {name: leaf.shape for name, leaf in batch["inputs"].items()}
    assert objective.flops(model, batch) == model.flops(shapes) + model.readout_flops(12)

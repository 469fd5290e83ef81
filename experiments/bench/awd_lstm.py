"""AWD-LSTM's step of training beside `torch.nn.LSTM` thrice with the same dropouts, and one layer of it alone.

The floor, T = 64 x 70 tokens a step, 30,000 words, 400 / 1152 / 3:

    6 T (sum over layers of 4 H (D + H) + D V)
    layers 544 + softmax 323 = 867 GFLOP               32 M parameters, 7 passes: 0.9 GB
    one layer of 1152 alone: 6 T 8 H^2 = 285 GFLOP, half of it in products that wait for one another

Of the layers 202 GFLOP is products of a 64-row state that wait for one another: 70 x 3 forward and as many backward,
each of which reads its whole kernel (21 MB and 0.68 GFLOP in the wide layers); the rest is large products. At 100
GFLOP/s the floor alone is 8.7 s a step, 517 tokens a second; 600 need 116 GFLOP/s.

The peers: both activation terms, a tied softmax over all words and Adam; of the layer alone, the same weights.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from experiments.bench import training
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

WORDS, EMBED, WIDTH, DEPTH, LANES, LENGTH = 30_000, 400, 1152, 3, 64, 70
DROPOUTS = {"dropout": 0.1, "input_dropout": 0.25, "hidden_dropout": 0.15, "embed_dropout": 0.02, "weight_drop": 0.2}
ITEMS = {
    "awd_lstm": f"AWD-LSTM {EMBED} / {WIDTH} / {DEPTH}, {WORDS:,} words, {LANES} lanes of {LENGTH}, float32",
    "lstm_1152": f"one LSTM layer of {WIDTH}, forward and backward, {LANES} lanes of {LENGTH}, float32",
}


def batch_of(words: int, lanes: int, length: int) -> dict[str, Any]:
    """Words by Zipf's law in lanes of full windows, as the source `running` gives them."""
    rng = np.random.default_rng(0)
    chance = 1.0 / np.arange(1, words + 1)
    tokens = rng.choice(words, (lanes, length + 1), p=chance / chance.sum()).astype(np.int32)
    return {
        "inputs": {"tokens": tokens[:, :-1], "mask": np.ones((lanes, length), bool)},
        "targets": tokens[:, 1:],
        "weights": np.ones((lanes, length), np.float32),
        "is_first": np.zeros((lanes,), bool),
    }


def layer_batch(rows: int, length: int, cells: int) -> dict[str, Any]:
    """Vectors of every step, and weights as torch initialises them (gates i f j o, outputs by inputs)."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.uniform(-(cells**-0.5), cells**-0.5, shape).astype(np.float32)
    x = rng.standard_normal((length, rows, cells), np.float32)
    return {"x": x, "input": draw(4 * cells, cells), "recurrent": draw(4 * cells, cells), "bias": draw(4 * cells)}


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `ITEMS`."""
    return _layer(settings) if name == "lstm_1152" else _model(settings)


def _model(settings: Settings) -> Work:
    from ctxjax.models import awd_lstm
    from ctxjax.objectives import causal_lm

    words, embed, width, lanes, length = (61, 8, 12, 4, 7) if settings.tiny else (WORDS, EMBED, WIDTH, LANES, LENGTH)
    batch, tokens = batch_of(words, lanes, length), training.tokens_of(lanes, length)
    model = awd_lstm.Model(words, width=width, embed_width=embed, depth=DEPTH, **DROPOUTS)
    objective = causal_lm.Objective(ar=2.0, tar=1.0)
    rule = {"name": "adamw", "lr": 5e-3, "b1": 0.8, "b2": 0.99, "clip": 0.12, "schedule": {"name": "constant"}}
    return Work(
        counted="tokens",
        ours=lambda: training.our_step(model, objective, rule, batch, tokens, lanes),
        peers={"torch": lambda: _peer(model, batch, tokens)},
        needs=("torch",),
        flops=training.step_flops(objective, model, batch) / tokens,
        notes={"softmax": f"full, {words:,} words, tied", "tokens_per_step": tokens},
    )


def _peer(model: Any, batch: dict[str, Any], tokens: float) -> Side:
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    lanes = batch["targets"].shape[0]
    words, sizes = model.vocab_size, [model.embed_width, *[model.width] * (model.depth - 1), model.embed_width]

    def locked(x: Any, rate: float) -> Any:
        return x * x.new_empty(1, *x.shape[1:]).bernoulli_(1 - rate).div_(1 - rate)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.empty(words, model.embed_width).uniform_(-0.1, 0.1))
            self.bias = nn.Parameter(torch.zeros(words))
            self.lstms = nn.ModuleList([nn.LSTM(below, above) for below, above in itertools.pairwise(sizes)])

        def forward(self, tokens: Any, states: list[Any]) -> tuple[Any, Any, list[Any]]:
            kept_words = self.table.new_empty(words, 1).bernoulli_(1 - DROPOUTS["embed_dropout"])
            table = self.table * kept_words / (1 - DROPOUTS["embed_dropout"])
            x = locked(functional.embedding(tokens, table), DROPOUTS["input_dropout"])
            kept = []
            for index, lstm in enumerate(self.lstms):
                x = locked(x, DROPOUTS["hidden_dropout"]) if index else x
                weights = dict(lstm.named_parameters())
                dropped = functional.dropout(weights["weight_hh_l0"], DROPOUTS["weight_drop"])
                x, state = torch.func.functional_call(lstm, weights | {"weight_hh_l0": dropped}, (x, states[index]))
                kept.append(tuple(leaf.detach() for leaf in state))
            return x, locked(x, DROPOUTS["dropout"]), kept

    peer = Peer().train().to(training.place())
    optimizer = torch.optim.Adam(peer.parameters(), lr=5e-3, betas=(0.8, 0.99))
    tokens_in, targets = (training.tensors(leaf.T) for leaf in (batch["inputs"]["tokens"], batch["targets"]))
    zeros = lambda size: torch.zeros(1, lanes, size, device=training.place())
    states: list[Any] = [(zeros(size), zeros(size)) for size in sizes[1:]]

    def loss() -> Any:
        nonlocal states
        raw, dropped, states = peer(tokens_in, states)
        logits = functional.linear(dropped.flatten(0, 1), peer.table, peer.bias)
        told = functional.cross_entropy(logits, targets.flatten())
        return told + 2.0 * dropped.square().mean() + (raw[1:] - raw[:-1]).square().mean()

    return training.their_step(peer.parameters(), optimizer, loss, tokens, 0.12)


def _layer(settings: Settings) -> Work:
    rows, length, cells = (4, 7, 12) if settings.tiny else (LANES, LENGTH, WIDTH)
    batch, tokens = layer_batch(rows, length, cells), training.tokens_of(rows, length)
    return Work(
        counted="tokens",
        ours=lambda: _our_layer(batch, tokens),
        peers={"torch": lambda: _their_layer(batch, tokens)},
        needs=("torch",),
        flops=6.0 * 8 * cells**2,
        notes={"tokens_per_step": tokens},
    )


def _our_layer(batch: dict[str, Any], tokens: float) -> Side:
    """Gradients of inputs and weights of the mean square of the states."""
    import jax
    import jax.numpy as jnp

    from ctxjax.models.layers import steps
    from ctxjax.models.layers.lstm import lstm

    _, rows, cells = batch["x"].shape

    def ours_of(weight: np.ndarray) -> np.ndarray:  # torch's i f j o to i j f o
        first, forget, inner, out = np.split(weight, 4)
        return np.ascontiguousarray(np.concatenate([first, inner, forget, out]).T)

    params = {part: ours_of(batch[part]) for part in ("input", "recurrent", "bias")} | {"x": batch["x"]}

    def loss_of(params: dict[str, Any]) -> Any:
        gates = steps.affine(params["x"][None], params["input"][None], params["bias"][None], None)
        zeros = jnp.zeros((1, rows, cells))
        return jnp.square(lstm(gates, params["recurrent"][None], zeros, zeros)[0]).mean()

    compiled = jax.jit(jax.value_and_grad(loss_of)).lower(params).compile()
    placed = jax.device_put(params)

    def step() -> Step:
        loss, gradient = compiled(placed)
        jax.block_until_ready(gradient)
        return Step(tokens, loss=float(loss))

    return step


def _their_layer(batch: dict[str, Any], tokens: float) -> Side:
    import torch

    cells = batch["x"].shape[2]
    layer = torch.nn.LSTM(cells, cells)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(batch["input"]))
        layer.weight_hh_l0.copy_(torch.from_numpy(batch["recurrent"]))
        layer.bias_ih_l0.copy_(torch.from_numpy(batch["bias"]))
        layer.bias_hh_l0.zero_()
    layer = layer.to(training.place())
    x = training.tensors(batch["x"]).requires_grad_()

    def step() -> Step:
        layer.zero_grad()
        x.grad = None
        loss = layer(x)[0].square().mean()
        loss.backward()
        return Step(tokens, loss=float(loss.detach()))

    return step

"""ELMo's biLM: its step of training beside a char-CNN over all positions and `torch.nn.LSTM(proj_size=...)`.

The floor, T = lanes x 20 words of each direction a step, 2 T of which U are distinct (about half), conv = 16 sum(w f) *
(length + 1) windows, computed once more in the backward pass:

    6 (2 T) L (D 8 H + H D) + 6 (2 T) D V + 6 U (2 x 2 x 2048^2 + 2048 D + conv)
    small      (1024 / 128):  18 + 10 + ~71 =  99 GFLOP     26 M parameters, 5 passes: 0.5 GB
    medium     (2048 / 256):  73 + 20 + ~72 = 165 GFLOP     39 M parameters            0.8 GB
    published  (4096 / 512), 793,471 words, 8,192 of them drawn for the softmax of a step, 384 lanes, bf16

What is executed counts distinct words alone, and their true windows. The peer clips nothing inside the LSTM, which
torch's cannot, and adds its residual by hand. Where it computes in bf16, so are its LSTMs' weights (cuDNN wants one
type for all, and copies every step would cost the peer), the rest are f32; the sampled softmax is written as ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.bench import training
from experiments.bench.measure import Side, Work
from experiments.bench.training import Settings

LENGTH, CHARS = 20, 50
# cell, projection, words, of which drawn (0: all), lanes, dtype
SIZES = {
    "bilm_small": (1024, 128, 10_000, 0, 32, "float32"),
    "bilm_medium": (2048, 256, 10_000, 0, 32, "float32"),
    "bilm_published": (4096, 512, 793_471, 8192, 384, "bfloat16"),
}
ITEMS = {
    name: f"biLM {cell} / {projection}, {words:,} words, {lanes} lanes of {LENGTH}, {dtype}"
    for name, (cell, projection, words, _, lanes, dtype) in SIZES.items()
}


def batch_of(words: int, lanes: int) -> dict[str, Any]:
    """Words by Zipf's law, 3 to 14 letters, the frequent ones shorter; about half of the positions are repeats."""
    rng = np.random.default_rng(0)
    chance = 1.0 / np.arange(1, words + 1)
    draw = lambda: rng.choice(words, (lanes, 2, LENGTH), p=chance / chance.sum()).astype(np.int32)
    tokens, targets = draw(), draw()
    spelling = np.full((words, CHARS), 260, np.uint16)
    for rank in np.unique(tokens):
        letters = int(np.clip(rng.gamma(6.0, 0.5 + 0.1 * np.log(rank + 1)), 1, 24))
        spelling[rank, : letters + 2] = [258, *rng.integers(97, 123, letters), 259]
    return {
        "inputs": {"tokens": tokens, "chars": spelling[tokens].astype(np.int32)},
        "targets": targets,
        "weights": np.ones((lanes, 2, LENGTH), np.float32),
        "is_first": np.zeros((lanes,), bool),
    }


def executed(model: Any, chars: np.ndarray, flops: float) -> float:
    """FLOPs without repeats and without the windows of padding, the convolution once more in the backward pass."""
    words = np.unique(chars.reshape(-1, CHARS), axis=0)
    lengths = (words != 260).sum(1)
    per_window = model.char_dim * sum(width * number for width, number in model.filters)
    whole = sum(w * f * (CHARS - w + 1) for w, f in model.filters) * model.char_dim
    dense, positions = model.char_products() - whole, chars.size // CHARS
    plain = 6.0 * positions * model.char_products()
    return flops - plain + 6.0 * len(words) * dense + 8.0 * per_window * float((lengths + 1).sum())


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `SIZES`."""
    from ctxjax.models import bilm
    from ctxjax.objectives import bilm as objectives

    cell, projection, words, samples, lanes, dtype = SIZES[name]
    more: dict[str, Any] = {}
    if dtype == "bfloat16":
        training.need_accelerator(name, settings)
    if settings.tiny:
        cell, projection, words, samples, lanes = 12, 8, 61, min(samples, 16), 4
        more = {"char_dim": 4, "filters": ((1, 4), (2, 8))}
    batch, tokens = batch_of(words, lanes), training.tokens_of(lanes, LENGTH)
    model = bilm.Model(words, width=cell, projection=projection, groups=1, dtype=dtype, **more)
    objective = objectives.Objective(samples=samples)
    rule = {"name": "adagrad", "lr": 0.2, "clip": 10.0, "schedule": {"name": "constant"}}
    flops = training.step_flops(objective, model, batch)
    return Work(
        counted="tokens",
        ours=lambda: training.our_step(model, objective, rule, batch, tokens, lanes),
        peers={"torch": lambda: _peer(model, samples, batch, tokens)},
        needs=("torch",),
        flops=flops / tokens,
        executed=executed(model, batch["inputs"]["chars"], flops) / tokens,
        dtype=dtype,
        steps=1 if dtype == "float32" else 10,
        notes={
            "softmax": f"{samples:,} of {words:,} words drawn" if samples else f"full, {words:,} words",
            "positions": batch["inputs"]["tokens"].size,
            "distinct": len(np.unique(batch["inputs"]["tokens"])),
            "tokens_per_step": tokens,
        },
    )


def _peer(model: Any, samples: int, batch: dict[str, Any], tokens: float) -> Side:
    import torch
    from torch import nn

    torch.manual_seed(0)
    size, features = model.projection, sum(number for _, number in model.filters)
    kind = getattr(torch, model.dtype)

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chars = nn.Embedding(model.num_chars, model.char_dim)
            self.convs = nn.ModuleList([nn.Conv1d(model.char_dim, number, width) for width, number in model.filters])
            self.gates = nn.ModuleList([nn.Linear(features, 2 * features) for _ in range(model.highways)])
            self.project = nn.Linear(features, size)

        def forward(self, chars: Any) -> Any:
            embedded = self.chars(chars.reshape(-1, CHARS)).transpose(1, 2)
            x = torch.relu(torch.cat([conv(embedded).amax(2) for conv in self.convs], 1))
            for layer in self.gates:
                made, gate = layer(x).chunk(2, 1)
                gate = torch.sigmoid(gate)
                x = gate * torch.relu(made) + (1 - gate) * x
            return self.project(x).reshape(*chars.shape[:3], -1)

    words, softmax, drop = Words(), nn.Linear(size, model.vocab_size), nn.Dropout(model.dropout)
    lstms = nn.ModuleList([nn.LSTM(size, model.width, proj_size=size) for _ in range(2 * model.depth)]).to(kind)
    whole = nn.ModuleList([words, lstms, softmax]).train().to(training.place())
    fused = training.compiled(words)  # cuDNN's LSTM is a kernel already
    loss_of = training.compiled(_sampled if samples else _full)
    optimizer = torch.optim.Adagrad(whole.parameters(), lr=0.2, initial_accumulator_value=1.0)
    fed = training.tensors(batch)
    states: list[Any] = [None] * len(lstms)

    def loss() -> Any:
        nonlocal states
        total, kept = 0.0, []
        drawn = _draw(model.vocab_size, samples, training.place()) if samples else ()
        with training.cast(model.dtype):
            embedded = fused(fed["inputs"]["chars"])
        for direction in range(2):
            x = embedded[:, direction].transpose(0, 1).to(kind)
            for layer in range(model.depth):
                dropped, index = drop(x), model.depth * direction + layer
                x, state = lstms[index](dropped, states[index])
                x = x + dropped if layer else x
                kept.append(tuple(leaf.detach() for leaf in state))
            with training.cast(model.dtype):
                targets = fed["targets"][:, direction].T.reshape(-1)
                total = total + 0.5 * loss_of(drop(x).reshape(-1, size), softmax, targets, *drawn)
        states = kept
        return total

    return training.their_step(whole.parameters(), optimizer, loss, tokens, 10.0, 20.0)


def _full(rows: Any, softmax: Any, targets: Any) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(softmax(rows).float(), targets)


def _draw(words: int, samples: int, place: str) -> tuple[Any, Any]:
    """Distinct words by the log-uniform law, and the logarithm of each word's chance of being among them."""
    import torch

    ranks = torch.arange(words, device=place, dtype=torch.float32)
    law = torch.log(torch.log1p(1.0 / (ranks + 1.0)) / float(np.log(words + 1.0)))
    rings = law - torch.log(torch.empty_like(law).exponential_())
    first, ids = torch.topk(rings, samples + 1)
    return ids[:-1], torch.log(-torch.expm1(-torch.exp(law - first[-1])))


def _sampled(rows: Any, softmax: Any, targets: Any, drawn: Any, log_expected: Any) -> Any:
    """Cross-entropy over a word and the drawn ones, each corrected by its chance; an accidental hit does not count."""
    import torch
    from torch.nn import functional

    offset = softmax.bias - log_expected
    logits = functional.linear(rows, softmax.weight[drawn]).float() + offset[drawn]
    logits = logits.masked_fill(drawn[None, :] == targets[:, None], float("-inf"))
    own = (rows.float() * softmax.weight[targets]).sum(1) + offset[targets]
    return functional.cross_entropy(torch.cat([own[:, None], logits], 1), targets.new_zeros(len(own)))

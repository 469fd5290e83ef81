"""How many tokens a second one train step takes in, beside its arithmetic floor and a PyTorch peer in the same run.

    python experiments/bench/step.py bert_tiny|bert_mini|bert_base|bilm_small|bilm_medium|awd_lstm \
        [--compare] [--steps 5]

The step is `ctxjax.step.make_train_step` with dropout on, the published optimiser, f32, on data made here: forward,
backward, clip, update, the check of finiteness. `--compare` alternates it with the peer, one step of each in turn, so
that a busy machine slows both: for BERT `transformers`' BertForPreTraining with logits of every position and
torch.optim.AdamW; for the biLM a char-CNN over all positions and `torch.nn.LSTM(proj_size)` (no clipping, residual by
hand) with torch.optim.Adagrad; for AWD-LSTM `torch.nn.LSTM` thrice with the same dropouts, both activation terms, a
tied softmax over all words and torch.optim.Adam. `--cores` pins both to as many. Beside wall time stands processor time
a core, which a busy machine inflates less.

The floor, in products alone (2 FLOPs a multiply-add, a backward pass costs two forwards), T tokens a step:

    BERT   6 T (L (4 D^2 + 2 D F) + 2 L S D) + 6 N D (D + V), N = 20 rows of a sequence of S = 128
           tiny   (2 x 128, 32 x 128):  10.8 + 15.1 =  26 GFLOP      7 array passes of  4.4 M parameters: 0.1 GB
           mini   (4 x 256, 16 x 128):  41.9 + 15.1 =  57 GFLOP      ...                11.3 M           0.3 GB
           base   (12 x 768, 8 x 128):  551  + 23   = 574 GFLOP      ...               110.1 M           3.1 GB
    biLM   6 (2 T) L (D 8 H + H D) + 6 (2 T) D V + 6 U (2 x 2 x 2048^2 + 2048 D + conv), T = 32 x 20, 2 T words of which
           U distinct (about half), conv = 16 sum(w f) * (length + 1) windows, computed once more in the backward pass
           small  (1024 / 128):  18 + 10 + ~71 =  99 GFLOP     26 M parameters, 5 passes: 0.5 GB
           medium (2048 / 256):  73 + 20 + ~72 = 165 GFLOP     39 M parameters            0.8 GB

    AWD    6 T (sum over layers of 4 H (D + H) + D V), T = 64 x 70, 30,000 words, 400 / 1152 / 3
           layers 544 + softmax 323 = 867 GFLOP               32 M parameters, 7 passes: 0.9 GB

Of AWD-LSTM's layers 202 GFLOP is products of a 64-row state that wait for one another: 70 x 3 forward and as many
backward, each of which reads its whole kernel (21 MB and 0.68 GFLOP in the wide layers); the rest is large products. At
100 GFLOP/s the floor alone is 8.7 s a step, 517 tokens a second; 600 need 116 GFLOP/s.

`executed` in the record counts what the step computes: distinct words alone, the true windows. Its rate over that of a
2048^3 f32 matrix product, measured in the same run, is the fraction of peak.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

VOCAB, SLOTS, LENGTH = 30522, 20, 128
BERT = {  # rows, width, depth, heads
    "bert_tiny": (32, 128, 2, 2),
    "bert_mini": (16, 256, 4, 4),
    "bert_base": (8, 768, 12, 12),
}
BILM = {"bilm_small": (1024, 128), "bilm_medium": (2048, 256)}  # cell, projection
WORDS, ROWS, UNROLL, CHARS = 10_000, 32, 20, 50
AWD = {"awd_lstm": (30_000, 400, 1152, 3, 64, 70)}  # words, embedding, cells, layers, lanes, length
DROPOUTS = {"dropout": 0.1, "input_dropout": 0.25, "hidden_dropout": 0.15, "embed_dropout": 0.02, "weight_drop": 0.2}
Step = Callable[[], float]


def bert_batch(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    places = rng.permuted(np.tile(np.arange(LENGTH, dtype=np.int32), (rows, 1)), axis=1)[:, :SLOTS]
    return {
        "inputs": {
            "tokens": rng.integers(0, VOCAB, (rows, LENGTH), dtype=np.int32),
            "segment_ids": np.repeat(np.arange(2, dtype=np.int32)[None], rows, 0).repeat(LENGTH // 2, 1),
            "mask": np.ones((rows, LENGTH), bool),
            "cls_positions": np.zeros((rows, 1), np.int32),
        },
        "target_positions": np.sort(places),
        "targets": rng.integers(0, VOCAB, (rows, SLOTS), dtype=np.int32),
        "weights": np.ones((rows, SLOTS), np.float32),
        "is_random": rng.integers(0, 2, (rows,), dtype=np.int32),
    }


def bilm_batch() -> dict[str, Any]:
    """Words by Zipf's law, 3 to 14 letters, the frequent ones shorter; about half of the positions are repeats."""
    rng = np.random.default_rng(0)
    spelling = np.full((WORDS, CHARS), 260, np.int32)
    for rank in range(WORDS):
        letters = int(np.clip(rng.gamma(6.0, 0.5 + 0.1 * np.log(rank + 1)), 1, 24))
        spelling[rank, : letters + 2] = [258, *rng.integers(97, 123, letters), 259]
    chance = 1.0 / np.arange(1, WORDS + 1)
    draw = lambda: rng.choice(WORDS, (ROWS, 2, UNROLL), p=chance / chance.sum()).astype(np.int32)
    tokens = draw()
    return {
        "inputs": {"tokens": tokens, "chars": spelling[tokens]},
        "targets": draw(),
        "weights": np.ones((ROWS, 2, UNROLL), np.float32),
        "is_first": np.zeros((ROWS,), bool),
    }


def awd_batch(name: str) -> dict[str, Any]:
    """Words by Zipf's law in lanes of full windows, as the source `running` gives them."""
    words, _, _, _, lanes, length = AWD[name]
    rng = np.random.default_rng(0)
    chance = 1.0 / np.arange(1, words + 1)
    tokens = rng.choice(words, (lanes, length + 1), p=chance / chance.sum()).astype(np.int32)
    return {
        "inputs": {"tokens": tokens[:, :-1], "mask": np.ones((lanes, length), bool)},
        "targets": tokens[:, 1:],
        "weights": np.ones((lanes, length), np.float32),
        "is_first": np.zeros((lanes,), bool),
    }


def ours(name: str, batch: dict[str, Any], groups: int) -> tuple[Step, dict[str, float]]:
    """A step of ctxjax as a function without arguments that gives the loss, and its counts."""
    import jax

    from ctxjax import optim, rngs, tree
    from ctxjax.models import awd_lstm, bert, bilm
    from ctxjax.objectives import bilm as bilm_objective
    from ctxjax.objectives import causal_lm, masked_lm
    from ctxjax.step import init_state, make_train_step

    if name in BERT:
        _, width, depth, heads = BERT[name]
        model = bert.Model(VOCAB, width=width, depth=depth, num_heads=heads, mlp_dim=4 * width)
        objective, carry_rows = masked_lm.Objective(), 0
        rule = {"name": "adam_bert", "lr": 1e-4, "clip": 1.0, "weight_decay": 0.01}
        rule["schedule"] = {"name": "warmup_linear", "warmup": "10 percent"}
    elif name in AWD:
        words, embed, width, depth, carry_rows, _ = AWD[name]
        model = awd_lstm.Model(words, width=width, embed_width=embed, depth=depth, **DROPOUTS)
        objective = causal_lm.Objective(ar=2.0, tar=1.0)
        rule = {"name": "adamw", "lr": 5e-3, "b1": 0.8, "b2": 0.99, "clip": 0.12, "schedule": {"name": "constant"}}
    else:
        width, projection = BILM[name]
        model = bilm.Model(WORDS, width=width, projection=projection, groups=groups)
        objective, carry_rows = bilm_objective.Objective(samples=0), ROWS
        rule = {"name": "adagrad", "lr": 0.2, "clip": 10.0, "schedule": {"name": "constant"}}
    root, inputs = rngs.root_key(0), batch["inputs"]
    params = jax.eval_shape(lambda: model.init(root, inputs, method="touch")["params"])
    tx, _ = optim.make_optimizer(100_000, params, **rule)
    state = jax.jit(lambda key: init_state(model, tx, inputs, key, carry_rows))(root)
    start = time.perf_counter()
    compiled = jax.jit(make_train_step(model, objective, tx), donate_argnums=0).lower(state, batch, root).compile()
    counts = {
        "params": tree.count(params),
        "flops": 3.0 * objective.flops(model, batch),
        "compile_s": round(time.perf_counter() - start, 1),
    }
    counts["executed"] = counts["flops"]
    if name in BILM:
        counts |= {"positions": batch["inputs"]["tokens"].size, "distinct": len(np.unique(batch["inputs"]["tokens"]))}
        counts["executed"] = bilm_executed(model, batch["inputs"]["chars"], counts)

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, batch, root)
        return float(metrics["loss"])

    return step, counts


def bilm_executed(model: Any, chars: np.ndarray, counts: dict[str, float]) -> float:
    """FLOPs without repeats and without the windows of padding, the convolution once more in the backward pass."""
    words = np.unique(chars.reshape(-1, CHARS), axis=0)
    lengths = (words != 260).sum(1)
    per_window = model.char_dim * sum(width * number for width, number in model.filters)
    whole = per_window * 0.0 + sum(w * f * (CHARS - w + 1) for w, f in model.filters) * model.char_dim
    dense = model.char_products() - whole
    plain = 6.0 * counts["positions"] * model.char_products()
    return counts["flops"] - plain + 6.0 * len(words) * dense + 8.0 * per_window * float((lengths + 1).sum())


def bert_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from transformers import BertConfig, BertForPreTraining

    rows, width, depth, heads = BERT[name]
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    model = BertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    long = lambda array: torch.from_numpy(np.asarray(array)).long()
    labels = np.full((rows, LENGTH), -100)
    np.put_along_axis(labels, batch["target_positions"], batch["targets"], 1)
    fed = {
        "input_ids": long(batch["inputs"]["tokens"]),
        "token_type_ids": long(batch["inputs"]["segment_ids"]),
        "attention_mask": long(batch["inputs"]["mask"]),
        "labels": long(labels),
        "next_sentence_label": long(batch["is_random"]),
    }

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**fed).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss)

    return step


def bilm_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from torch import nn

    cell, size = BILM[name]
    filters = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    features = sum(number for _, number in filters)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chars = nn.Embedding(261, 16)
            self.convs = nn.ModuleList([nn.Conv1d(16, number, width) for width, number in filters])
            self.gates = nn.ModuleList([nn.Linear(features, 2 * features) for _ in range(2)])
            self.project = nn.Linear(features, size)
            self.lstms = nn.ModuleList([nn.LSTM(size, cell, proj_size=size) for _ in range(4)])
            self.softmax = nn.Linear(size, WORDS)
            self.drop = nn.Dropout(0.1)

        def words(self, chars: Any) -> Any:
            embedded = self.chars(chars.reshape(-1, CHARS)).transpose(1, 2)
            x = torch.relu(torch.cat([conv(embedded).amax(2) for conv in self.convs], 1))
            for layer in self.gates:
                made, gate = layer(x).chunk(2, 1)
                gate = torch.sigmoid(gate)
                x = gate * torch.relu(made) + (1 - gate) * x
            return self.project(x).reshape(*chars.shape[:3], -1)

        def forward(self, chars: Any, targets: Any, states: list[Any]) -> tuple[Any, list[Any]]:
            embedded, total, kept = self.words(chars), 0.0, []
            for direction in range(2):
                x = embedded[:, direction].transpose(0, 1)
                for layer in range(2):
                    dropped = self.drop(x)
                    x, state = self.lstms[2 * direction + layer](dropped, states[2 * direction + layer])
                    x = x + dropped if layer else x
                    kept.append(tuple(leaf.detach() for leaf in state))
                logits = self.softmax(self.drop(x)).reshape(-1, WORDS)
                total = total + 0.5 * nn.functional.cross_entropy(logits, targets[:, direction].T.reshape(-1))
            return total, kept

    model = Peer().train()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.2, initial_accumulator_value=1.0)
    chars, targets = (torch.from_numpy(leaf).long() for leaf in (batch["inputs"]["chars"], batch["targets"]))
    states: list[Any] = [None] * 4

    def step() -> float:
        nonlocal states
        optimizer.zero_grad()
        loss, states = model(chars, targets, states)
        (20.0 * loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return float(loss)

    return step


def awd_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from torch import nn

    words, embed, width, depth, lanes, _ = AWD[name]
    sizes = [embed, *[width] * (depth - 1), embed]

    def locked(x: Any, rate: float) -> Any:
        return x * torch.empty(1, *x.shape[1:]).bernoulli_(1 - rate).div_(1 - rate)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.empty(words, embed).uniform_(-0.1, 0.1))
            self.bias = nn.Parameter(torch.zeros(words))
            self.lstms = nn.ModuleList([nn.LSTM(below, above) for below, above in itertools.pairwise(sizes)])

        def forward(self, tokens: Any, states: list[Any]) -> tuple[Any, Any, list[Any]]:
            kept_words = torch.empty(words, 1).bernoulli_(1 - DROPOUTS["embed_dropout"])
            table = self.table * kept_words / (1 - DROPOUTS["embed_dropout"])
            x = locked(nn.functional.embedding(tokens, table), DROPOUTS["input_dropout"])
            kept = []
            for index, lstm in enumerate(self.lstms):
                x = locked(x, DROPOUTS["hidden_dropout"]) if index else x
                weights = dict(lstm.named_parameters())
                dropped = nn.functional.dropout(weights["weight_hh_l0"], DROPOUTS["weight_drop"])
                x, state = torch.func.functional_call(lstm, weights | {"weight_hh_l0": dropped}, (x, states[index]))
                kept.append(tuple(leaf.detach() for leaf in state))
            return x, locked(x, DROPOUTS["dropout"]), kept

    model = Peer().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.8, 0.99))
    tokens, targets = (torch.from_numpy(leaf.T.copy()).long() for leaf in (batch["inputs"]["tokens"], batch["targets"]))
    states: list[Any] = [(torch.zeros(1, lanes, size), torch.zeros(1, lanes, size)) for size in sizes[1:]]

    def step() -> float:
        nonlocal states
        optimizer.zero_grad()
        raw, dropped, states = model(tokens, states)
        logits = nn.functional.linear(dropped.flatten(0, 1), model.table, model.bias)
        loss = nn.functional.cross_entropy(logits, targets.flatten())
        loss = loss + 2.0 * dropped.square().mean() + (raw[1:] - raw[:-1]).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.12)
        optimizer.step()
        return float(loss.detach())

    return step


def matmul_peak(size: int = 2048, times: int = 3) -> float:
    """FLOP/s of the best of a few f32 matrix products in JAX."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        product(x).block_until_ready()
        took.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(took)


def summary(tokens: int, walls: list[float], processors: list[float], cores: int) -> dict[str, Any]:
    rates = [tokens / wall for wall in walls]
    return {
        "tokens_per_s": round(statistics.median(rates), 1),
        "range": [round(min(rates), 1), round(max(rates), 1)],
        "tokens_per_processor_s": round(tokens * cores / statistics.median(processors), 1),
        "steps": len(walls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*BERT, *BILM, *AWD])
    parser.add_argument("--compare", action="store_true", help="alternate with the PyTorch peer")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each side, after one to warm up")
    parser.add_argument("--cores", type=int, default=0, help="use this many processor cores; 0: all")
    parser.add_argument("--groups", type=int, default=1, help="model.groups of the biLM")
    parser.add_argument("--no-record", action="store_true", help="print alone")
    args = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0))[: args.cores or None]
    os.sched_setaffinity(0, usable)

    from ctxjax import records

    if args.name in BERT:
        batch, tokens, peer = bert_batch(BERT[args.name][0]), BERT[args.name][0] * LENGTH, bert_peer
        softmax = "gathered 20 of 128 positions"
    elif args.name in BILM:
        batch, tokens, peer, softmax = bilm_batch(), ROWS * UNROLL, bilm_peer, "full, 10,000 words"
    else:
        batch, tokens, peer = awd_batch(args.name), AWD[args.name][4] * AWD[args.name][5], awd_peer
        softmax = f"full, {AWD[args.name][0]:,} words, tied"
    step, counts = ours(args.name, batch, args.groups)
    sides: dict[str, Step] = {"ctxjax": step}
    if args.compare:
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(len(usable))
        sides["peer"] = peer(args.name, batch)
    walls: dict[str, list[float]] = {side: [] for side in sides}
    processors: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    peaks = [matmul_peak()]
    for turn in range(args.steps + 1):
        for side, run in sides.items():
            wall, processor = time.perf_counter(), time.process_time()
            losses[side].append(run())
            if turn:
                walls[side].append(time.perf_counter() - wall)
                processors[side].append(time.process_time() - processor)
    peaks.append(matmul_peak())
    peak = max(peaks)
    payload: dict[str, Any] = {
        "bench": args.name,
        "tokens_per_step": tokens,
        "cores_used": len(usable),
        "softmax": softmax,
        **counts,
        "matmul_peak_gflops": round(peak / 1e9, 1),
        "fraction_of_peak": round(counts["executed"] / statistics.median(walls["ctxjax"]) / peak, 3),
        "load_average": os.getloadavg()[0],
        "loss": {side: [values[0], values[-1]] for side, values in losses.items()},
    }
    payload |= {side: summary(tokens, walls[side], processors[side], len(usable)) for side in sides}
    if args.compare:
        payload["ratio"] = round(payload["ctxjax"]["tokens_per_s"] / payload["peer"]["tokens_per_s"], 2)
        by_core = [payload[side]["tokens_per_processor_s"] for side in sides]
        payload["ratio_of_processor_time"] = round(by_core[0] / by_core[1], 2)
    for name, value in payload.items():
        print(f"{name:24} {value}")
    if not args.no_record:
        shown = {
            f"{side}, tokens/s at load {payload['load_average']:.1f}": payload[side]["tokens_per_s"] for side in sides
        }
        shown |= {
            f"{name.replace('_', ' ')}": payload[name] for name in ("ratio", "fraction_of_peak") if name in payload
        }
        print(records.write(f"bench_step_{args.name}", payload | {"figures": shown}))


if __name__ == "__main__":
    main()

"""How many tokens a second one train step takes in, beside its arithmetic floor and a PyTorch peer in the same run.

    python experiments/bench/step.py bert_mini [--compare] [--steps 5]

The step is `ctxjax.step.make_train_step` with dropout on, the published optimiser, f32, on data made here: forward,
backward, clip, update, the check of finiteness. `--compare` alternates it with the peer, one step of each in turn, so
that a busy machine slows both: for BERT `transformers`' BertForPreTraining with logits of every position and
torch.optim.AdamW; for the biLM a char-CNN over all positions and `torch.nn.LSTM(proj_size)` (no clipping, residual by
hand) with torch.optim.Adagrad; for AWD-LSTM `torch.nn.LSTM` thrice with the same dropouts, both activation terms, a
tied softmax over all words and torch.optim.Adam; for GPT-2 `transformers`' GPT2LMHeadModel and torch.optim.AdamW; for
one layer of an LSTM, forward and backward alone, `torch.nn.LSTM` with the same weights. The peers are in peers.py, the
sizes and batches in work.py. `--cores` pins both to as many. Beside wall time stands processor time
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

    GPT-2  6 T (L (4 D^2 + 2 D F) + L S D + D V), T = 4 x 256, causal scores of S = 256 counted by half
           small  (12 x 768):  522 + 15 + 237 = 774 GFLOP     124 M parameters, 7 passes: 3.5 GB
    LSTM   6 T 8 H^2, T = 64 x 70, H = 1152:    285 GFLOP, half of it in products that wait for one another

Of AWD-LSTM's layers 202 GFLOP is products of a 64-row state that wait for one another: 70 x 3 forward and as many
backward, each of which reads its whole kernel (21 MB and 0.68 GFLOP in the wide layers); the rest is large products. At
100 GFLOP/s the floor alone is 8.7 s a step, 517 tokens a second; 600 need 116 GFLOP/s.

`executed` in the record counts what the step computes: distinct words alone, the true windows. Its rate over that of a
2048^3 f32 matrix product, measured in the same run, is the fraction of peak.
"""

from __future__ import annotations

import argparse
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import peers
import work
from work import AWD, BERT, BILM, CHARS, DROPOUTS, GPT2, GPT2_VOCAB, LENGTH, LSTM, ROWS, UNROLL, VOCAB, WORDS

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

Step = Callable[[], float]


def ours(name: str, batch: dict[str, Any], groups: int) -> tuple[Step, dict[str, float]]:
    """A step of ctxjax as a function without arguments that gives the loss, and its counts."""
    import jax

    from ctxjax import optim, rngs, tree
    from ctxjax.models import awd_lstm, bert, bilm, gpt2
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
    elif name in GPT2:
        _, _, width, depth, heads = GPT2[name]
        model = gpt2.Model(GPT2_VOCAB, width=width, depth=depth, num_heads=heads, mlp_dim=4 * width)
        objective, carry_rows = causal_lm.Objective(), 0
        rule = {"name": "adamw", "lr": 2.5e-4, "clip": 1.0, "weight_decay": 0.01, "schedule": {"name": "constant"}}
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


def our_layer(name: str, batch: dict[str, Any]) -> tuple[Step, dict[str, float]]:
    """One layer of an LSTM forward and backward: gradients of inputs and weights of the mean square of the states."""
    import jax
    import jax.numpy as jnp

    from ctxjax.models.layers import steps
    from ctxjax.models.layers.lstm import lstm

    rows, length, cells = LSTM[name]

    def ours_of(weight: np.ndarray) -> np.ndarray:  # torch's i f j o to i j f o
        first, forget, inner, out = np.split(weight, 4)
        return np.ascontiguousarray(np.concatenate([first, inner, forget, out]).T)

    params = {part: ours_of(batch[part]) for part in ("input", "recurrent", "bias")} | {"x": batch["x"]}

    def loss_of(params: dict[str, Any]) -> Any:
        gates = steps.affine(params["x"][None], params["input"][None], params["bias"][None], None)
        zeros = jnp.zeros((1, rows, cells))
        return jnp.square(lstm(gates, params["recurrent"][None], zeros, zeros)[0]).mean()

    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss_of)).lower(params).compile()
    flops = 6.0 * rows * length * 8 * cells**2
    counts = {"flops": flops, "executed": flops, "compile_s": round(time.perf_counter() - start, 1)}
    placed = jax.device_put(params)

    def step() -> float:
        loss, gradient = compiled(placed)
        jax.block_until_ready(gradient)
        return float(loss)

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
    parser.add_argument("name", choices=[*BERT, *BILM, *AWD, *GPT2, *LSTM])
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
        batch, tokens, peer = work.bert_batch(BERT[args.name][0]), BERT[args.name][0] * LENGTH, peers.bert_peer
        softmax = "gathered 20 of 128 positions"
    elif args.name in BILM:
        batch, tokens, peer, softmax = work.bilm_batch(), ROWS * UNROLL, peers.bilm_peer, "full, 10,000 words"
    elif args.name in GPT2:
        batch, tokens, peer = work.gpt2_batch(args.name), math.prod(GPT2[args.name][:2]), peers.gpt2_peer
        softmax = f"full, {GPT2_VOCAB:,} pieces, tied"
    elif args.name in LSTM:
        batch, tokens, peer = work.lstm_batch(args.name), math.prod(LSTM[args.name][:2]), peers.lstm_peer
        softmax = "none"
    else:
        batch, tokens, peer = work.awd_batch(args.name), math.prod(AWD[args.name][4:]), peers.awd_peer
        softmax = f"full, {AWD[args.name][0]:,} words, tied"
    step, counts = our_layer(args.name, batch) if args.name in LSTM else ours(args.name, batch, args.groups)
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

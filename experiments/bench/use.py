"""How many sentences a second a small encoder reads, and learns from, beside transformers in the same run.

    python experiments/bench/use.py encode|encode_natural|finetune [--compare] [--turns 3]

The encoder has the size of MiniLM-L6 (6 layers of 384, MLP 1536, 12 heads) and fresh parameters, f32.

    encode          32 sentences of 64 pieces, to vectors of the top layer, through what `embed(layers="top")` uses
    encode_natural  512 sentences of natural lengths (a gamma distribution with a mean of 27 pieces, at most 128). Ours
                    go through `Runner`, which sorts them into few shapes; the peer pads batches of 32, in the order in
                    which they come, to their longest.
    finetune        a step on 32 pairs of natural lengths, two labels, dropout on, Adam with decay: ours padded to few
                    widths and sixteen batches sorted together, the peer's to 128, as BERT's published recipe pads.

The floor, in products alone, of a sentence of S pieces (2 FLOPs a multiply-add):

    2 S L (4 D^2 + 2 D F) + 4 L S^2 D = 21.2e6 S + 9.2e3 S^2
    S = 64: 1.40 GFLOP, 115 sentences a second are 161 GFLOP/s; a step of training is three times as much.

`--compare` takes turns, ours and the peer's, so that a busy machine slows both; the peer is also compiled
(`torch.compile`) with `--compiled`. Medians over the turns.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from step import matmul_peak

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NAMES = ("encode", "encode_natural", "finetune")
VOCAB, WIDTH, DEPTH, HEADS, MLP, LONGEST = 30522, 384, 6, 12, 1536, 128
ROWS, LENGTH, SENTENCES = 32, 64, 512
Side = Callable[[], Any]


def lengths_of(name: str) -> np.ndarray:
    """Pieces of every sentence."""
    if name == "encode":
        return np.full(ROWS, LENGTH)
    scale = 27.0 if name == "encode_natural" else 53.0  # of a pair of MRPC there are 53 on average
    drawn = np.random.default_rng(0).gamma(4.0, scale / 4.0, SENTENCES)
    return np.clip(drawn.round(), 5, LONGEST).astype(int)


def sentences_of(name: str) -> list[np.ndarray]:
    """Random pieces of those lengths."""
    rng = np.random.default_rng(1)
    return [rng.integers(1000, VOCAB, length).astype(np.int32) for length in lengths_of(name)]


def our_encoder(name: str) -> Side:
    """All sentences through `Runner`, to their vectors in NumPy."""
    import jax

    from ctxjax.inference import Runner
    from ctxjax.models import bert

    model = bert.Model(VOCAB, width=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_dim=MLP)
    sequences = [{"tokens": one, "segment_ids": np.zeros_like(one)} for one in sentences_of(name)]
    row = {key: value[None] for key, value in sequences[0].items()}
    inputs = row | {"mask": np.ones_like(row["tokens"], bool), "cls_positions": np.zeros((1, 1), np.int32)}
    params = jax.jit(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"])()
    runner = Runner(model, params)
    return lambda: sum(values.shape[1] for _, values in runner.hidden(sequences, top=True))


def their_model(kind: str) -> Any:
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=MLP
    )
    torch.manual_seed(0)
    return getattr(transformers, kind)(config)


def padded(sentences: list[np.ndarray], length: int) -> dict[str, Any]:
    import torch

    tokens = torch.zeros(len(sentences), length, dtype=torch.long)
    mask = torch.zeros(len(sentences), length, dtype=torch.long)
    for row, one in enumerate(sentences):
        tokens[row, : len(one)], mask[row, : len(one)] = torch.from_numpy(one).long(), 1
    return {"input_ids": tokens, "attention_mask": mask}


def their_encoder(name: str, compiled: bool) -> Side:
    """Batches of 32 in the order in which they come."""
    import torch

    model, sentences = their_model("BertModel").eval(), sentences_of(name)
    batches = [sentences[first : first + ROWS] for first in range(0, len(sentences), ROWS)]
    fed = [padded(batch, max(map(len, batch))) for batch in batches]
    call = torch.compile(model) if compiled else model

    def run() -> int:
        with torch.inference_mode():
            return sum(call(**batch).last_hidden_state.numpy().shape[0] for batch in fed)

    return run


def our_steps() -> Iterator[tuple[Side, int]]:
    """A step of training after the other, with its number of pairs; compiled beforehand for every width."""
    import jax

    from ctxjax import optim, rngs
    from ctxjax.data.shuffled import Shuffled
    from ctxjax.models import downstream
    from ctxjax.objectives.classification import Objective
    from ctxjax.step import init_state, make_train_step

    sentences = sentences_of("finetune")

    class Pairs(Shuffled):
        lengths = np.array([len(one) for one in sentences])

        def take(self, chosen: Any, width: int = 0) -> dict[str, Any]:
            shape = len(chosen), width or self.length
            tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
            for row, number in enumerate(chosen.tolist()):
                one = sentences[number]
                tokens[row, : len(one)], mask[row, : len(one)] = one, True
            inputs = {"tokens": tokens, "mask": mask, "segment_ids": np.zeros(shape, np.int32)}
            inputs["cls_positions"] = np.zeros((len(chosen), 1), np.int32)
            return {
                "inputs": inputs,
                "targets": chosen.astype(np.int32) % 2,
                "weights": np.ones(len(chosen), np.float32),
            }

    source = Pairs()
    source.pad(LONGEST, widths=4, together=16)
    encoder = {"name": "bert", "vocab_size": VOCAB, "width": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_dim": MLP}
    model = downstream.Model(encoder=encoder, task="classify", labels=("0", "1"), dropout=0.1)
    objective = Objective(task="classify")
    rule = {"name": "adam_bert", "lr": 5e-5, "clip": 1.0, "weight_decay": 0.01, "schedule": {"name": "constant"}}
    root, first = rngs.root_key(0), source.take(np.arange(2))
    params = jax.eval_shape(lambda: model.init(root, first["inputs"], method="touch")["params"])
    tx, _ = optim.make_optimizer(1000, params, **rule)
    state = jax.jit(lambda key: init_state(model, tx, first["inputs"], key, 0))(root)
    step = jax.jit(make_train_step(model, objective, tx), donate_argnums=0)
    compiled = {
        width: step.lower(state, source.take(np.arange(ROWS) * 0 + source.lengths.argmin(), width), root).compile()
        for width in source.padded
    }
    number = 0
    while True:
        batch = source.batch(0, ROWS, np.arange(number * ROWS, (number + 1) * ROWS))
        number += 1

        def run(batch: Any = batch) -> float:
            nonlocal state
            state, metrics = compiled[batch["inputs"]["tokens"].shape[1]](state, batch, root)
            return float(metrics["loss"])

        yield run, ROWS


def their_steps() -> Iterator[tuple[Side, int]]:
    import torch

    model = their_model("BertForSequenceClassification").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    sentences, number = sentences_of("finetune"), 0
    while True:
        first = number * ROWS % SENTENCES
        fed = padded(sentences[first : first + ROWS], LONGEST)
        labels = torch.arange(ROWS) % 2
        number += 1

        def run(fed: Any = fed, labels: Any = labels) -> float:
            optimizer.zero_grad()
            loss = model(**fed, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return float(loss)

        yield run, ROWS


def endless(run: Side, count: int) -> Iterator[tuple[Side, int]]:
    while True:
        yield run, count


def sides_of(name: str, options: argparse.Namespace) -> dict[str, Iterator[tuple[Side, int]]]:
    """What is timed, in turn."""
    if name == "finetune":
        return {"ctxjax": our_steps()} | ({"peer": their_steps()} if options.compare else {})
    count = len(lengths_of(name))
    sides = {"ctxjax": endless(our_encoder(name), count)}
    if options.compare:
        sides["peer"] = endless(their_encoder(name, False), count)
    if options.compiled:
        sides["peer_compiled"] = endless(their_encoder(name, True), count)
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--compare", action="store_true", help="take turns with transformers")
    parser.add_argument("--compiled", action="store_true", help="and with its compiled model")
    parser.add_argument("--turns", type=int, default=3, help="timed turns of each side, after one to warm up")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()

    from ctxjax import records

    if options.compare or options.compiled:
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    sides = sides_of(options.name, options)
    per_turn = 16 if options.name == "finetune" else 1  # steps, of which sixteen see all pairs once
    rates: dict[str, list[float]] = {side: [] for side in sides}
    peaks = [matmul_peak()]
    for turn in range(options.turns + 1):
        for side, stream in sides.items():
            count, began = 0, time.perf_counter()
            for _ in range(per_turn):
                run, sentences = next(stream)
                run()
                count += sentences
            if turn:
                rates[side].append(count / (time.perf_counter() - began))
    peaks.append(matmul_peak())
    lengths = lengths_of(options.name).astype(float)
    flops = float((2 * lengths * DEPTH * (4 * WIDTH**2 + 2 * WIDTH * MLP) + 4 * DEPTH * lengths**2 * WIDTH).mean())
    flops *= 3.0 if options.name == "finetune" else 1.0
    ours = statistics.median(rates["ctxjax"])
    payload: dict[str, Any] = {
        "bench": options.name,
        "pieces_on_average": round(float(lengths.mean()), 1),
        "flops_a_sentence": flops,
        "matmul_peak_gflops": round(max(peaks) / 1e9, 1),
        "fraction_of_peak": round(ours * flops / max(peaks), 3),
        "load_average": os.getloadavg()[0],
    }
    for side, found in rates.items():
        payload[side] = {
            "sentences_per_s": round(statistics.median(found), 1),
            "range": [round(min(found), 1), round(max(found), 1)],
        }
        if side != "ctxjax":
            payload[f"ratio_to_{side}"] = round(ours / statistics.median(found), 2)
    for name, value in payload.items():
        print(f"{name:24} {value}")
    if not options.no_record:
        load = f"sentences/s at load {payload['load_average']:.1f}"
        figures = {f"{side}, {load}": payload[side]["sentences_per_s"] for side in rates}
        figures |= {
            name.replace("_", " "): value
            for name, value in payload.items()
            if name.startswith("ratio_to") or name == "fraction_of_peak"
        }
        print(records.write(f"bench_use_{options.name}", payload | {"figures": figures}))


if __name__ == "__main__":
    main()

"""What the benches of a step work on: sizes of the models, and batches made here, the same for both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

VOCAB, SLOTS, LENGTH = 30522, 20, 128
BERT = {  # rows, width, depth, heads
    "bert_tiny": (32, 128, 2, 2),
    "bert_mini": (16, 256, 4, 4),
    "bert_base": (8, 768, 12, 12),
}
BILM = {"bilm_small": (1024, 128), "bilm_medium": (2048, 256)}  # cell, projection
WORDS, ROWS, UNROLL, CHARS = 10_000, 32, 20, 50
GPT2 = {"gpt2_small": (4, 256, 768, 12, 12)}  # rows, length, width, depth, heads
GPT2_VOCAB = 50257
DROPOUTS = {"dropout": 0.1, "input_dropout": 0.25, "hidden_dropout": 0.15, "embed_dropout": 0.02, "weight_drop": 0.2}
LSTM = {"lstm_1152": (64, 70, 1152)}  # rows, steps, cells; as many inputs
AWD = {"awd_lstm": (30_000, 400, 1152, 3, 64, 70)}  # words, embedding, cells, layers, lanes, length


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


def gpt2_batch(name: str) -> dict[str, Any]:
    """Rows of running text."""
    rows, length, *_ = GPT2[name]
    tokens = np.random.default_rng(0).integers(0, GPT2_VOCAB, (rows, length + 1), dtype=np.int32)
    return {
        "inputs": {"tokens": tokens[:, :-1], "mask": np.ones((rows, length), bool)},
        "targets": tokens[:, 1:],
        "weights": np.ones((rows, length), np.float32),
    }


def lstm_batch(name: str) -> dict[str, Any]:
    """Vectors of every step, and weights as torch initialises them (gates i f j o, outputs by inputs)."""
    rows, length, cells = LSTM[name]
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.uniform(-(cells**-0.5), cells**-0.5, shape).astype(np.float32)
    x = rng.standard_normal((length, rows, cells), np.float32)
    return {"x": x, "input": draw(4 * cells, cells), "recurrent": draw(4 * cells, cells), "bias": draw(4 * cells)}

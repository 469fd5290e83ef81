"""BERT's step of training beside transformers', plain and with the masked rows gathered before the vocabulary.

The floor, in products alone (2 FLOPs a multiply-add, a backward pass costs two forwards), T tokens a step in rows of S,
N of which are told in each:

    6 T (L (4 D^2 + 2 D F) + 2 L S D) + 6 N D (D + V)
    tiny   (2 x 128, 32 x 128):  10.8 + 15.1 =  26 GFLOP      7 array passes of  4.4 M parameters: 0.1 GB
    mini   (4 x 256, 16 x 128):  41.9 + 15.1 =  57 GFLOP      ...                11.3 M           0.3 GB
    base   (12 x 768, 8 x 128):  551  + 23   = 574 GFLOP      ...               110.1 M           3.1 GB

Both sides have dropout on, clip and decay in f32, or bf16 over f32 parameters in the sizes of an accelerator, where the
peers go through torch.compile; transformers' attention is SDPA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.bench import training
from experiments.bench.measure import Side, Work
from experiments.bench.training import Settings

VOCAB = 30522
# rows, length, told in a row, width, depth, heads, dtype
SIZES = {
    "bert_tiny": (32, 128, 20, 128, 2, 2, "float32"),
    "bert_mini": (16, 128, 20, 256, 4, 4, "float32"),
    "bert_base": (8, 128, 20, 768, 12, 12, "float32"),
    "bert_base_128": (256, 128, 20, 768, 12, 12, "bfloat16"),
    "bert_base_512": (64, 512, 77, 768, 12, 12, "bfloat16"),
    "bert_large_512": (32, 512, 77, 1024, 24, 16, "bfloat16"),
}
ITEMS = {
    name: f"BERT {depth}x{width}, {rows} rows of {length}, {dtype}"
    for name, (rows, length, _, width, depth, _, dtype) in SIZES.items()
}
STEPS = {"float32": 1, "bfloat16": 10}


def batch_of(rows: int, length: int, slots: int, vocab: int) -> dict[str, Any]:
    """Random pieces, the same for all sides."""
    rng = np.random.default_rng(0)
    places = rng.permuted(np.tile(np.arange(length, dtype=np.int32), (rows, 1)), axis=1)[:, :slots]
    return {
        "inputs": {
            "tokens": rng.integers(0, vocab, (rows, length), dtype=np.int32),
            "segment_ids": np.tile(np.arange(2, dtype=np.int32).repeat(length // 2), (rows, 1)),
            "mask": np.ones((rows, length), bool),
            "cls_positions": np.zeros((rows, 1), np.int32),
        },
        "target_positions": np.sort(places),
        "targets": rng.integers(0, vocab, (rows, slots), dtype=np.int32),
        "weights": np.ones((rows, slots), np.float32),
        "is_random": rng.integers(0, 2, (rows,), dtype=np.int32),
    }


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `SIZES`."""
    from ctxjax.models import bert
    from ctxjax.objectives import masked_lm

    rows, length, slots, width, depth, heads, dtype = SIZES[name]
    if dtype == "bfloat16":
        training.need_accelerator(name, settings)
    vocab = VOCAB
    if settings.tiny:
        rows, length, slots, width, depth, heads, vocab = 2, 16, 3, 16, 2, 2, 97
    batch, tokens = batch_of(rows, length, slots, vocab), training.tokens_of(rows, length)
    model = bert.Model(vocab, width=width, depth=depth, num_heads=heads, mlp_dim=4 * width, dtype=dtype)
    objective = masked_lm.Objective()
    rule = {"name": "adam_bert", "lr": 1e-4, "clip": 1.0, "weight_decay": 0.01}
    rule["schedule"] = {"name": "warmup_linear", "warmup": "10 percent"}
    peer = functools.partial(_peer, model, batch, tokens)
    return Work(
        counted="tokens",
        ours=lambda: training.our_step(model, objective, rule, batch, tokens),
        peers={
            "transformers": lambda: peer(_everywhere),
            "transformers, gathered": lambda: peer(_gathered),
        },
        needs=("torch", "transformers"),
        flops=training.step_flops(objective, model, batch) / tokens,
        dtype=dtype,
        steps=STEPS[dtype],
        notes={"softmax": f"{slots} of {length} positions gathered", "tokens_per_step": tokens},
    )


def _peer(model: Any, batch: dict[str, Any], tokens: float, loss_of: Callable[..., Any]) -> Side:
    """transformers' BERT of our size and batch, with AdamW."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        intermediate_size=model.mlp_dim,
        attn_implementation="sdpa",
    )
    peer = BertForPreTraining(config).train().to(training.place())
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, weight_decay=0.01)
    fed = training.tensors(batch)

    @training.compiled
    def loss() -> Any:
        return loss_of(peer, fed)

    def forward() -> Any:
        with training.cast(model.dtype):
            return loss()

    return training.their_step(peer.parameters(), optimizer, forward, tokens, 1.0)


def _inputs(fed: dict[str, Any]) -> dict[str, Any]:
    inputs = fed["inputs"]
    names = {"input_ids": "tokens", "token_type_ids": "segment_ids", "attention_mask": "mask"}
    return {theirs: inputs[ours] for theirs, ours in names.items()}


def _everywhere(peer: Any, fed: dict[str, Any]) -> Any:
    """The published class as it is: logits of every position, those that are not told ignored in the loss."""
    import torch

    labels = torch.full_like(fed["inputs"]["tokens"], -100).scatter(1, fed["target_positions"], fed["targets"])
    return peer(**_inputs(fed), labels=labels, next_sentence_label=fed["is_random"]).loss


def _gathered(peer: Any, fed: dict[str, Any]) -> Any:
    """What a careful user writes: only the rows that are told meet the vocabulary."""
    import torch

    hidden, pooled = peer.bert(**_inputs(fed), return_dict=False)
    where = fed["target_positions"][:, :, None].expand(-1, -1, hidden.shape[-1])
    logits = peer.cls.predictions(hidden.gather(1, where)).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits.float(), fed["targets"].flatten())
    return loss + torch.nn.functional.cross_entropy(peer.cls.seq_relationship(pooled).float(), fed["is_random"])

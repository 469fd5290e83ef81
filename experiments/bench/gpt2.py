"""GPT-2's step of training beside transformers'.

The floor, T tokens a step in rows of S, causal scores counted by half:

    6 T (L (4 D^2 + 2 D F) + L S D + D V)
    small  (12 x 768), T = 4 x 256:  522 + 15 + 237 = 774 GFLOP     124 M parameters, 7 passes: 3.5 GB

bf16 over f32 parameters at 1,024 tokens on an accelerator, with SDPA and torch.compile on the other side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.bench import training
from experiments.bench.measure import Side, Work
from experiments.bench.training import Settings

VOCAB, WIDTH, DEPTH, HEADS = 50257, 768, 12, 12
SIZES = {"gpt2_small": (4, 256, "float32"), "gpt2_small_1024": (16, 1024, "bfloat16")}  # rows, length, dtype
ITEMS = {
    name: f"GPT-2 {DEPTH}x{WIDTH}, {rows} rows of {length}, {dtype}" for name, (rows, length, dtype) in SIZES.items()
}


def batch_of(rows: int, length: int, vocab: int) -> dict[str, Any]:
    """Rows of random pieces."""
    tokens = np.random.default_rng(0).integers(0, vocab, (rows, length + 1), dtype=np.int32)
    return {
        "inputs": {"tokens": tokens[:, :-1], "mask": np.ones((rows, length), bool)},
        "targets": tokens[:, 1:],
        "weights": np.ones((rows, length), np.float32),
    }


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `SIZES`."""
    from ctxjax.models import gpt2
    from ctxjax.objectives import causal_lm

    (rows, length, dtype), vocab, width, depth, heads = SIZES[name], VOCAB, WIDTH, DEPTH, HEADS
    if dtype == "bfloat16":
        training.need_accelerator(name, settings)
    if settings.tiny:
        rows, length, vocab, width, depth, heads = 2, 16, 97, 16, 2, 2
    batch, tokens = batch_of(rows, length, vocab), training.tokens_of(rows, length)
    model = gpt2.Model(vocab, width=width, depth=depth, num_heads=heads, mlp_dim=4 * width, dtype=dtype)
    objective = causal_lm.Objective()
    rule = {"name": "adamw", "lr": 2.5e-4, "clip": 1.0, "weight_decay": 0.01, "schedule": {"name": "constant"}}
    return Work(
        counted="tokens",
        ours=lambda: training.our_step(model, objective, rule, batch, tokens),
        peers={"transformers": lambda: _peer(model, batch, tokens)},
        needs=("torch", "transformers"),
        flops=training.step_flops(objective, model, batch) / tokens,
        dtype=dtype,
        steps=1 if dtype == "float32" else 10,
        notes={"softmax": f"full, {vocab:,} pieces, tied", "tokens_per_step": tokens},
    )


def _peer(model: Any, batch: dict[str, Any], tokens: float) -> Side:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": model.width, "n_layer": model.depth, "n_head": model.num_heads, "n_positions": 1024}
    marks = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=model.vocab_size, attn_implementation="sdpa", **sizes, **marks)
    peer = GPT2LMHeadModel(config).train().to(training.place())
    optimizer = torch.optim.AdamW(peer.parameters(), lr=2.5e-4, weight_decay=0.01)
    fed = training.tensors(batch)

    @training.compiled
    def loss() -> Any:
        logits = peer(fed["inputs"]["tokens"], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), fed["targets"].flatten())

    def forward() -> Any:
        with training.cast(model.dtype):
            return loss()

    return training.their_step(peer.parameters(), optimizer, forward, tokens, 1.0)

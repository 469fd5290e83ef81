"""Steps of fine-tuning: 32 pairs of natural lengths, two labels, dropout on, Adam with decay; the encoder of encode.py.

Ours are padded to few widths and sixteen batches sorted together (`source.widths`, `source.together`); the peer's to
128, as BERT's published recipe pads. A turn is sixteen steps, which see all 512 pairs once.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from experiments.bench import training
from experiments.bench.encode import LONGEST, Encoder, natural, padded, their_model, tiny
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

ITEMS = {"finetune": "steps on 32 pairs of natural lengths, MiniLM-L6's size"}
TOGETHER = 16


def make(name: str, settings: Settings) -> Work:
    """The work of the item."""
    del name
    lengths = natural(53.0, 512)  # of a pair of MRPC there are 53 on average
    size = tiny(lengths) if settings.tiny else Encoder(lengths=lengths)
    return Work(
        counted="sentences",
        ours=lambda: _ours(size),
        peers={"transformers": lambda: _theirs(size)},
        needs=("torch", "transformers"),
        flops=3.0 * size.flops,
        steps=len(size.lengths) // size.rows,
        notes={"pieces_on_average": round(float(np.mean(size.lengths)), 1)},
    )


def _ours(size: Encoder) -> Side:
    """A step of training after the other, compiled beforehand for every width."""
    import jax

    from ctxjax import optim, rngs
    from ctxjax.data.shuffled import Shuffled
    from ctxjax.models import downstream
    from ctxjax.objectives.classification import Objective
    from ctxjax.step import init_state, make_train_step

    sentences, rows = size.sentences(), size.rows

    class Pairs(Shuffled):
        lengths = np.array(size.lengths)

        def take(self, chosen: Any, width: int = 0) -> dict[str, Any]:
            shape = len(chosen), width or self.length
            tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
            for row, number in enumerate(chosen.tolist()):
                one = sentences[number]
                tokens[row, : len(one)], mask[row, : len(one)] = one, True
            inputs = {"tokens": tokens, "mask": mask, "segment_ids": np.zeros(shape, np.int32)}
            inputs["cls_positions"] = np.zeros((len(chosen), 1), np.int32)
            targets, weights = chosen.astype(np.int32) % 2, np.ones(len(chosen), np.float32)
            return {"inputs": inputs, "targets": targets, "weights": weights}

    source = Pairs()
    source.pad(LONGEST, widths=4, together=TOGETHER)
    encoder = {"name": "bert", "vocab_size": size.vocab, "width": size.width, "depth": size.depth}
    encoder |= {"num_heads": size.heads, "mlp_dim": size.mlp}
    model = downstream.Model(encoder=encoder, task="classify", labels=("0", "1"), dropout=0.1)
    objective = Objective(task="classify")
    rule = {"name": "adam_bert", "lr": 5e-5, "clip": 1.0, "weight_decay": 0.01, "schedule": {"name": "constant"}}
    root, inputs = rngs.root_key(0), source.take(np.arange(2))["inputs"]
    params = jax.eval_shape(lambda inputs: model.init(root, inputs, method="touch")["params"], inputs)
    tx, _ = optim.make_optimizer(1000, params, **rule)
    state = jax.jit(lambda inputs, key: init_state(model, tx, inputs, key, 0))(inputs, root)
    step = jax.jit(make_train_step(model, objective, tx), donate_argnums=0)
    shortest = np.full(rows, source.lengths.argmin())
    compiled = {width: step.lower(state, source.take(shortest, width), root).compile() for width in source.padded}
    numbers = itertools.count()

    def run() -> Step:
        nonlocal state
        first = next(numbers) * rows
        batch = source.batch(0, rows, np.arange(first, first + rows))
        state, metrics = compiled[batch["inputs"]["tokens"].shape[1]](state, batch, root)
        return Step(rows, loss=float(metrics["loss"]))

    return run


def _theirs(size: Encoder) -> Side:
    import torch

    model = their_model(size, "BertForSequenceClassification").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    sentences, numbers = size.sentences(), itertools.count()

    def loss() -> Any:
        first = next(numbers) * size.rows % len(sentences)
        labels = torch.arange(size.rows, device=training.place()) % 2
        return model(**padded(sentences[first : first + size.rows], LONGEST), labels=labels).loss

    return training.their_step(model.parameters(), optimizer, loss, size.rows, 1.0)

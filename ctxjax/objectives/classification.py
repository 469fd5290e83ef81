"""The objective of tasks on whole texts: which label, which number, which of several choices; beside it, perhaps, the
loss of a language model on the same texts.

Of both orders of a pair the two vectors are summed, as GPT does.

Reference: Devlin et al. 2019, sections 4.1 and 4.4; Radford et al. 2018, sections 3.2 and 3.3; Peters et al. 2018,
section 3.2, for the penalty on a mix of layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.objectives import vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Outputs, Terms

TERMS = {"classify": "labels", "regress": "numbers", "choose": "choices"}


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy of labels or choices, or the squared error of numbers.

    Attributes:
      task: that of the model: "classify", "regress" or "choose".
      language_model: coefficient of the loss of the next word, the mean over the words of a row, then over rows.
      mix_l2: coefficient of the sum of squares of the raw weights of the model's mix of layers.
    """

    task: str = "classify"
    language_model: float = 0.0
    mix_l2: float = 0.0
    perplexity = ()

    def __post_init__(self) -> None:
        if self.task not in TERMS:
            raise ValueError(f"objective.task={self.task!r} is none of {', '.join(TERMS)}")

    @property
    def loss(self) -> Mapping[str, float]:
        more = {"next_words": self.language_model, "mix": self.mix_l2}
        return {TERMS[self.task]: 1.0} | {name: value for name, value in more.items() if value}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of examples, and of their rows."""
        count = batch["weights"].astype(jnp.float32).sum()
        return {name: count * (_rows_each(batch) if name == "next_words" else 1) for name in self.loss}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms labels, numbers or choices (minimised), with NAME_accuracy; next_words and mix where they are."""
        outputs = forward(batch["inputs"], carry)
        weights = batch["weights"].astype(jnp.float32)
        name, count = TERMS[self.task], weights.sum()
        scores = told(forward, outputs, self.task)
        if self.task == "regress":
            error = jnp.square(scores - batch["targets"].astype(jnp.float32))
            terms = {name: Mean((weights * error).sum(), count)}
        else:
            chosen = jax.nn.one_hot(batch["targets"], scores.shape[-1], dtype=jnp.float32)
            nll = -(chosen * jax.nn.log_softmax(scores)).sum(-1)
            hits = (scores.argmax(-1) == batch["targets"]).astype(jnp.float32)
            terms = {name: Mean((weights * nll).sum(), count), f"{name}_accuracy": Mean((weights * hits).sum(), count)}
        if self.language_model:
            total = _next_words(forward, batch, outputs, weights)
            terms["next_words"] = Mean(total, count * _rows_each(batch))
        if self.mix_l2:
            penalty = jnp.square(forward.head("mix").astype(jnp.float32)).sum()
            terms["mix"] = Mean(penalty * count, count)
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the encoder, the scores, and the logits of the next words."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        tokens = shapes["tokens"]
        rows = tokens[0] * tokens[1] if self.task == "choose" else tokens[0]
        total = model.flops(shapes) + model.readout_flops(rows)
        if self.language_model:
            total += model.language_model_flops(tokens[0] * _rows_each(batch) * (tokens[-1] - 1))  # pyright: ignore
        return total


def told(forward: Forward, outputs: Outputs, task: str) -> Array:
    """What a model tells of every example: a score for each label or choice `[B N]`, or a number `[B]`; f32."""
    assert outputs.pooled is not None
    if task == "choose":
        return forward.head(task, outputs.pooled)[..., 0]
    scores = forward.head(task, outputs.pooled.sum(1, keepdims=True))[:, 0]
    return scores[:, 0] if task == "regress" else scores


def _rows_each(batch: Batch) -> int:
    """Rows of an example: its choices, or both orders of its pair."""
    shape = batch["inputs"]["tokens"].shape
    return shape[1] if len(shape) > 2 else 1


def _next_words(forward: Forward, batch: Batch, outputs: Outputs, weights: Array) -> Array:
    """The sum over rows of the mean loss of the next word, of which marks are words too."""
    top = outputs.hidden[-1]
    length = top.shape[1]
    tokens, mask = (batch["inputs"][name].reshape(-1, length) for name in ("tokens", "mask"))
    counted = mask[:, 1:].astype(jnp.float32)
    each = jnp.repeat(weights, _rows_each(batch)) / jnp.maximum(counted.sum(1), 1.0)
    readout = forward.head("language_model", top[:, :-1].reshape(-1, top.shape[-1]))
    shares = (counted * each[:, None]).reshape(-1)
    return vocabulary.cross_entropy(*readout, tokens[:, 1:].reshape(-1), shares)[0]


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny GPT with its language model's loss, the objective, and four pairs in both orders, one of which is
    not counted."""
    from ctxjax.models import downstream

    sizes = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32, "max_len": 24}
    dropouts = {"dropout": 0.0, "attention_dropout": 0.0, "table_dropout": 0.0}
    encoder = {"name": "gpt", "vocab_size": 53, **sizes, **dropouts}
    model = downstream.Model(encoder=encoder, labels=("a", "b", "c"), language_model=True)
    lengths = jnp.array([[7, 6], [5, 7], [6, 6], [3, 4]])
    batch = {
        "inputs": {
            "tokens": jax.random.randint(jax.random.key(0), (4, 2, 7), 0, 53),
            "mask": jnp.arange(7)[None, None] < lengths[:, :, None],
            "cls_positions": lengths[:, :, None] - 1,
        },
        "targets": jnp.array([1, 0, 2, 1]),
        "weights": jnp.array([1.0, 1.0, 0.0, 1.0]),
    }
    return model, Objective(language_model=0.5), batch

"""The training objective over a held-out split: its loss terms, its metrics and their perplexities.

Objectives evaluate with the full softmax, and models without dropout. Batches, and with them the masks, are the same in
every evaluation and every run; lanes of a stream carry their state from batch to batch as in training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ctxjax import rngs, sharding
from ctxjax.config import ConfigError
from ctxjax.data import pipeline
from ctxjax.metrics import add_terms, summarize
from ctxjax.step import make_eval_step


class Evaluator:
    """Runs an objective over a split.

    Args:
      split: the split of the corpus.
      batches: how many batches; 0 is one pass.
      batch_size: rows of a batch; 0 is that of training.
      seed: of the data's order and masks.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        batches: int = 0,
        batch_size: int = 0,
        seed: int = 0,
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Mesh,
        train_batch_size: int,
    ):
        self.source = open_source(split)
        self.batch_size = batch_size or train_batch_size
        self.seed, self.mesh, self.model = seed, mesh, model
        self.perplexity = tuple(getattr(objective, "perplexity", ()))
        shards, there = sharding.row_shards(mesh), self.source.steps_per_pass(self.batch_size)
        if self.batch_size % shards:
            raise ConfigError(f"an evaluation batch of {self.batch_size} does not divide over {shards} devices")
        if there < 1:
            raise ConfigError(
                f"the split {split!r} is too small for evaluation batches of {self.batch_size}: "
                "set a smaller batch_size in config.evals"
            )
        self.batches = min(batches, there) if batches else there
        self._step = jax.jit(sharding.on(mesh, make_eval_step(model, objective)), donate_argnums=2)

    def run(self, params: Any) -> dict[str, float]:
        """Means and perplexities of all terms by name."""
        everywhere = sharding.replicated(self.mesh)
        key = jax.jit(lambda: rngs.named_key(rngs.root_key(self.seed), "evaluate"), out_shardings=everywhere)()
        carry = jax.jit(
            lambda: self.model.init_carry(self.batch_size), out_shardings=sharding.batch_sharding(self.mesh)
        )()
        index, count = sharding.process_rows(self.mesh)
        stream = pipeline.batches(
            self.source, seed=self.seed, batch_size=self.batch_size, process_index=index, process_count=count
        )
        total, pending = None, None
        try:
            for _ in range(self.batches):
                batch = sharding.put(next(stream), self.mesh)
                terms, carry = self._step(params, batch, carry, key)
                if pending is not None:
                    total = add_terms(total, jax.device_get(pending))
                pending = terms
        finally:
            stream.close()
        return summarize(add_terms(total, jax.device_get(pending)), self.perplexity)

"""Sentences to vectors by an encoder of MiniLM-L6's size (6 layers of 384, MLP 1536, 12 heads), fresh parameters, f32.

    encode          32 sentences of 64 pieces, to vectors of the top layer, through what `embed(layers="top")` uses
    encode_natural  512 sentences of natural lengths (a gamma distribution with a mean of 27 pieces, at most 128). Ours
                    go through `Runner`, which sorts them into few shapes; the peer pads batches of 32, in the order in
                    which they come, to their longest.

The floor, in products alone, of a sentence of S pieces (2 FLOPs a multiply-add):

    2 S L (4 D^2 + 2 D F) + 4 L S^2 D = 21.2e6 S + 9.2e3 S^2
    S = 64: 1.40 GFLOP, 115 sentences a second are 161 GFLOP/s; a step of training is three times as much.

The peers are transformers' BertModel, as it is and through torch.compile where there is a C++ compiler.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import numpy as np

from experiments.bench import training
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

ITEMS = {
    "encode": "32 sentences of 64 pieces to vectors, MiniLM-L6's size",
    "encode_natural": "512 sentences of natural lengths to vectors",
}
LONGEST = 128


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Sizes of the encoder, and what is read: rows of a batch, and pieces of every sentence."""

    vocab: int = 30522
    width: int = 384
    depth: int = 6
    heads: int = 12
    rows: int = 32
    lengths: tuple[int, ...] = (64,) * 32

    @property
    def mlp(self) -> int:
        return 4 * self.width

    @property
    def flops(self) -> float:
        """Forward FLOPs of a sentence, products alone, without padding."""
        lengths = np.array(self.lengths, float)
        dense = 2 * lengths * self.depth * (4 * self.width**2 + 2 * self.width * self.mlp)
        return float((dense + 4 * self.depth * lengths**2 * self.width).mean())

    def sentences(self) -> list[np.ndarray]:
        """Random pieces of those lengths."""
        rng = np.random.default_rng(1)
        return [rng.integers(min(1000, self.vocab // 2), self.vocab, one).astype(np.int32) for one in self.lengths]


def natural(mean: float, count: int) -> tuple[int, ...]:
    """Lengths of sentences by a gamma distribution."""
    drawn = np.random.default_rng(0).gamma(4.0, mean / 4.0, count)
    return tuple(np.clip(drawn.round(), 5, LONGEST).astype(int).tolist())


def tiny(lengths: tuple[int, ...]) -> Encoder:
    """A test-sized encoder."""
    return Encoder(vocab=97, width=16, depth=2, heads=2, rows=4, lengths=lengths[:8])


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `ITEMS`."""
    size = Encoder() if name == "encode" else Encoder(lengths=natural(27.0, 512))
    size = tiny(size.lengths) if settings.tiny else size
    peers = {"transformers": lambda: _theirs(size, False)}
    if shutil.which("g++") or shutil.which("clang++"):
        peers["transformers, compiled"] = lambda: _theirs(size, True)
    return Work(
        counted="sentences",
        ours=lambda: _ours(size),
        peers=peers,
        needs=("torch", "transformers"),
        flops=size.flops,
        notes={"pieces_on_average": round(float(np.mean(size.lengths)), 1)},
    )


def _ours(size: Encoder) -> Side:
    """All sentences through `Runner`, to their vectors in NumPy."""
    import jax

    from ctxjax.inference import Runner
    from ctxjax.models import bert

    model = bert.Model(size.vocab, width=size.width, depth=size.depth, num_heads=size.heads, mlp_dim=size.mlp)
    sequences = [{"tokens": one, "segment_ids": np.zeros_like(one)} for one in size.sentences()]
    row = {key: value[None] for key, value in sequences[0].items()}
    inputs = row | {"mask": np.ones_like(row["tokens"], bool), "cls_positions": np.zeros((1, 1), np.int32)}
    params = jax.jit(lambda inputs: model.init(jax.random.key(0), inputs, method="touch")["params"])(inputs)
    runner = Runner(model, params)

    def step() -> Step:
        list(runner.hidden(sequences, top=True))
        return Step(len(sequences))

    return step


def their_model(size: Encoder, kind: str) -> Any:
    """A class of transformers in the encoder's size, where peers run."""
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=size.vocab,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=size.mlp,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    return getattr(transformers, kind)(config).to(training.place())


def padded(sentences: list[np.ndarray], length: int) -> dict[str, Any]:
    """Pieces and mask as transformers takes them."""
    tokens, mask = np.zeros((2, len(sentences), length), np.int64)
    for row, one in enumerate(sentences):
        tokens[row, : len(one)], mask[row, : len(one)] = one, 1
    return training.tensors({"input_ids": tokens, "attention_mask": mask})


def _theirs(size: Encoder, through_compiler: bool) -> Side:
    """Batches in the order in which they come, to vectors in NumPy."""
    import torch

    model, sentences = their_model(size, "BertModel").eval(), size.sentences()
    batches = [sentences[first : first + size.rows] for first in range(0, len(sentences), size.rows)]
    fed = [padded(batch, max(map(len, batch))) for batch in batches]
    call = torch.compile(model) if through_compiler else model

    def step() -> Step:
        with torch.inference_mode():
            for batch in fed:
                call(**batch).last_hidden_state.cpu().numpy()
        return Step(len(sentences))

    return step

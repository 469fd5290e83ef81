"""A model, an objective and a source from outside the tree: a small recurrent language model on streams of numbers.

With dropout and a carry, so that resuming has something to get wrong; configs name them `tests.engine.outside`.
"""

import hashlib
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ctxjax.data.pipeline import rows_of
from ctxjax.text.tokenizer import write_files
from ctxjax.types import Mean, Outputs


class Model(nn.Module):
    """Embedding, dropout, one recurrent layer, a table for the vocabulary."""

    vocab_size: int
    width: int = 16
    num_heads: int = 1
    max_len: int = 64
    dropout: float = 0.2
    remat: bool = False

    def setup(self):
        self.embed = nn.Embed(self.vocab_size, self.width)
        self.layer_0 = nn.Dense(self.width)
        self.drop = nn.Dropout(self.dropout)
        self.softmax = nn.Embed(self.vocab_size, self.width)
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,))

    def __call__(self, inputs, carry=(), train=False):
        x = self.drop(self.embed(inputs["tokens"]), deterministic=not train)
        state = carry["layer_0"] if carry else jnp.zeros((x.shape[0], self.width))
        hidden = []
        for time in range(x.shape[1]):
            state = jnp.tanh(self.layer_0(jnp.concatenate([x[:, time], state], axis=1)))
            hidden.append(state)
        hidden = self.drop(jnp.stack(hidden, axis=1), deterministic=not train)
        return Outputs((x, hidden), carry={"layer_0": state})

    def readout(self, rows):
        return rows, self.softmax.embedding, self.bias

    def head(self, name, *features):
        raise KeyError(name)

    def touch(self, inputs):
        return self.readout(self(inputs).hidden[-1].reshape(-1, self.width))

    def init_carry(self, batch_size):
        return {"layer_0": jnp.zeros((batch_size, self.width))}

    def flops(self, shapes):
        return 12.0 * self.width**2 * np.prod(shapes["tokens"])

    def readout_flops(self, rows):
        return 2.0 * rows * self.width * self.vocab_size


class Objective:
    """The next token, with `smoothing` of a uniform distribution."""

    perplexity = ("next",)

    def __init__(self, smoothing: float = 0.0):
        self.smoothing = smoothing
        self.loss = {"next": 1.0}

    def weights(self, batch):
        return {"next": batch["weights"].sum()}

    def __call__(self, forward, batch, carry):
        first = batch["is_first"]
        carry = jax.tree.map(lambda leaf: jnp.where(first[:, None], 0.0, leaf), carry)
        outputs = forward(batch["inputs"], carry)
        hidden = outputs.hidden[-1]
        rows, table, bias = forward.readout(hidden.reshape(-1, hidden.shape[-1]))
        logits = rows @ table.T + bias[None]
        logs = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(logs, batch["targets"].reshape(-1, 1), axis=1)[:, 0]
        losses = (1 - self.smoothing) * losses - self.smoothing * logs.mean(axis=1)
        weights = batch["weights"].reshape(-1)
        right = (logits.argmax(axis=1) == batch["targets"].reshape(-1)).astype(jnp.float32)
        terms = {
            "next": Mean((losses * weights).sum(), weights.sum()),
            "accuracy": Mean((right * weights).sum(), weights.sum()),
        }
        return terms, outputs.carry

    def flops(self, model, batch):
        tokens = batch["inputs"]["tokens"].shape
        return model.flops({"tokens": tokens}) + model.readout_flops(int(np.prod(tokens)))


class Tokenizer:
    kind = "words"

    def __init__(self, pieces):
        self.pieces = pieces
        self.ids = {piece: index for index, piece in enumerate(pieces)}

    def __len__(self):
        return len(self.pieces)

    def digest(self):
        return hashlib.sha256("\n".join(self.pieces).encode()).hexdigest()[:16]

    def save(self, folder):
        write_files(
            folder,
            {"tokenizer.json": json.dumps({"kind": "numbers"}), "vocab.txt": "\n".join(self.pieces) + "\n"},
        )


class Source:
    """Lanes of a stream of numbers: step s of a pass holds tokens [s T, (s + 1) T) of every lane.

    The batches of steps `[poison_from, poison_to)` weigh infinity, so that their loss is not a number.
    """

    def __init__(self, corpus: str, split: str = "train", length: int = 8, poison_from: int = 0, poison_to: int = 0):
        self.poison = (poison_from, poison_to) if split == "train" else (0, 0)
        folder = pathlib.Path(corpus)
        self.tokens = np.load(folder / f"{split}.npy", allow_pickle=False)
        self.tokenizer = Tokenizer((folder / "vocab.txt").read_text().split())
        self.length, self.vocab_size, self.tokens_per_row = length, len(self.tokenizer), length
        self.fingerprint = {
            "shards": hashlib.sha256(self.tokens.tobytes()).hexdigest()[:16],
            "tokenizer": self.tokenizer.digest(),
            "split": split,
        }

    def steps_per_pass(self, batch_size):
        return (len(self.tokens) - 1) // (batch_size * self.length)

    def rows(self, seed, batch_size):
        return rows_of(self, seed, batch_size)

    def batch(self, seed, batch_size, elements):
        steps, lanes = np.divmod(elements, batch_size)
        per_pass = self.steps_per_pass(batch_size)
        passes, steps = np.divmod(steps, per_pass)
        start = lanes * per_pass * self.length + steps * self.length
        index = start[:, None] + np.arange(self.length)[None]
        shift = ((passes + seed) % 7)[:, None]  # each pass and each seed reads another language
        tokens = (self.tokens[index] + shift) % self.vocab_size
        first, last = self.poison
        bad = (elements // batch_size >= first) & (elements // batch_size < last)
        return {
            "inputs": {"tokens": tokens.astype(np.int32), "mask": np.ones(tokens.shape, bool)},
            "targets": ((self.tokens[index + 1] + shift) % self.vocab_size).astype(np.int32),
            "weights": np.where(bad[:, None], np.inf, np.ones(tokens.shape)).astype(np.float32),
            "is_first": steps == 0,
        }


def write_corpus(folder, size=4000, vocab=23, seed=0):
    """A stream in which the next number mostly follows from the last."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, length in (("train", size), ("heldout", size // 4)):
        tokens = [0]
        for noise in rng.integers(0, 3, length):
            tokens.append((3 * tokens[-1] + 1 + noise) % vocab)
        np.save(folder / f"{split}.npy", np.asarray(tokens, np.int64))
    (folder / "vocab.txt").write_text("".join(f"n{number}\n" for number in range(vocab)))
    return str(folder)


def get_config(arg=None):
    """`corpus=DIR` after the colon, or --config.source.corpus=DIR."""
    config = ml_collections.ConfigDict()
    config.seed = 7
    config.batch_size = 8
    config.accum_steps = 1
    config.total = "30 steps"
    config.model = dict(name="tests.engine.outside", vocab_size=23, width=16, dropout=0.2)
    config.objective = dict(name="tests.engine.outside", smoothing=0.0)
    config.source = dict(
        name="tests.engine.outside",
        corpus=(arg or "").partition("=")[2],
        split="train",
        length=8,
        poison_from=0,
        poison_to=0,
    )
    config.optim = dict(
        name="adamw", lr=1e-2, schedule=dict(name="warmup_linear", warmup="10%"), clip=1.0, weight_decay=0.01
    )
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.log_every = "1 steps"
    config.save_every = "10 steps"
    config.eval_every = "20 steps"
    config.keep = 3
    config.max_skipped = 5
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=4))
    origin = ml_collections.config_dict.placeholder(str)
    config.init_from = dict(path=origin, pattern=".*", optimizer=False, fresh_rows="random")
    config.tensorboard = False
    config.wandb = False
    config.profile_steps = ml_collections.config_dict.placeholder(str)
    config.workers = 0
    config.threads = 1
    return config

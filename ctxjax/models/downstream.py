"""An encoder put to use: any model of the family, and a head for one task on it.

The encoder's parameters have the paths of pre-training (`embed/...`, `layer_0/...`): both share one scope. So what is
taken from a checkpoint, trained at another rate, frozen or exported is said by the same expressions as there. All that
is new lies under `task/...`. The heads of pre-training are not made, but for a language model's that trains on.

Reference: Devlin et al. 2019, section 3.2; Radford et al. 2018, section 3.2; Peters et al. 2018, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax import config as configs
from ctxjax.models.layers.heads import HEADS, OUTCOMES, POOLS, at_positions, side_by_side
from ctxjax.models.layers.mix import Mix
from ctxjax.types import Carry, Inputs, Outputs


class Task(nn.Module):
    """`task/NAME`, the head, and `task/mix`, where layers are mixed."""

    name_of_head: str
    features: int
    outcomes: int
    mixed: int
    mix_norm: bool
    options: Mapping[str, Any]
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        made = HEADS[self.name_of_head](self.features, self.outcomes, self.kinds, **self.options)
        setattr(self, self.name_of_head, made)
        if self.mixed:
            self.mix = Mix(self.mixed, self.mix_norm, self.kinds["param_dtype"])

    @property
    def head(self) -> Any:
        """The head."""
        return getattr(self, self.name_of_head)

    def call(self, method: str, *features: Any) -> Any:
        """A method of the head."""
        return getattr(self.head, method)(*features)


class Model(nn.Module):
    """An encoder with a head.

    Attributes:
      encoder: `name` and fields of the encoder, as the `model` of its own config.
      task: "classify", "regress", "choose", "span", "coreference", or another name in `layers/heads.py`.
      labels: what is told of a text, by number; empty where numbers or choices are.
      pool: the one vector of a text: "" is the encoder's own, where it has a pooler, or the state at
        `inputs.cls_positions`; "mean" and "max" are over what is not padding.
      layers: which of `hidden` are used; empty for the last one, or for all where they are mixed.
      mix: a learned mix of the layers; several layers are set side by side otherwise.
      mix_norm: see `layers.mix.Mix`.
      compare: the two rows of an example are the texts u and v of a pair, each read alone, and the head is given
        [u, v, |u - v|, u v] (Conneau et al. 2017): for pairs whose encoder is not trained with the task.
      dropout: in the head.
      language_model: `head("language_model", rows)` gives the encoder's own readout, which is trained on.
      options: more fields of the head.
    """

    encoder: Mapping[str, Any]
    task: str = "classify"
    labels: tuple[str, ...] = ()
    pool: str = ""
    layers: tuple[int, ...] = ()
    mix: bool = False
    mix_norm: bool = False
    compare: bool = False
    dropout: float = 0.1
    language_model: bool = False
    options: Mapping[str, Any] | None = None

    def setup(self) -> None:
        if self.task not in HEADS:
            raise configs.ConfigError(f"config.model.task={self.task!r}{configs.did_you_mean(self.task, HEADS)}")
        if self.pool not in ("", *POOLS):
            raise configs.ConfigError(f"config.model.pool={self.pool!r}{configs.did_you_mean(self.pool, POOLS)}")
        if self.task == "classify" and len(self.labels) < 2:
            raise configs.ConfigError(f"config.model.labels={self.labels} are not two or more to choose from")
        if self.language_model and self._chosen() != (-1,):
            raise configs.ConfigError("config.model.language_model reads the last layer: leave model.layers and mix")
        self.body = configs.build("model", self.encoder)
        nn.share_scope(self, self.body)
        kinds = {name: getattr(self.body, name) for name in ("dtype", "param_dtype")}
        mixed = len(self._chosen()) if self.mix else 0
        options = {"dropout": self.dropout, **(self.options or {})}
        self.heads = Task(
            self.task, self.head_width(), self.outcomes(), mixed, self.mix_norm, options, kinds, name="task"
        )

    # --- what the encoder is ---

    def _encoder(self) -> Any:
        return configs.build("model", self.encoder, parent=None)

    @property
    def vocab_size(self) -> int:
        """Of the encoder."""
        return self._encoder().vocab_size

    @property
    def depth(self) -> int:
        """Of the encoder."""
        return self._encoder().depth

    @property
    def max_len(self) -> int | None:
        """Of the encoder; None where any length will do."""
        return getattr(self._encoder(), "max_len", None)

    @property
    def couples_rows(self) -> bool:
        """Whether the rows of a batch influence one another."""
        return self.mix_norm or getattr(self._encoder(), "couples_rows", False)

    def _chosen(self) -> tuple[int, ...]:
        if self.layers:
            return tuple(self.layers)
        return tuple(range(self._encoder().depth + 1)) if self.mix else (-1,)

    def widths(self) -> tuple[int, ...]:
        """Features of every layer of `hidden`, the last of which is what the head reads."""
        encoder = self._encoder()
        if hasattr(encoder, "widths"):
            found = tuple(encoder.widths())
        else:  # a biLM's layers are its two directions side by side
            found = (2 * encoder.projection if hasattr(encoder, "projection") else encoder.width,) * (encoder.depth + 1)
        chosen = [found[index] for index in self._chosen()]
        return (*found[:-1], max(chosen) if self.mix else sum(chosen))

    def head_width(self) -> int:
        """Width of what the head reads."""
        return self.widths()[-1] * (4 if self.compare else 1)

    def outcomes(self) -> int:
        """Scores of a text."""
        return len(self.labels) or OUTCOMES.get(self.task, 1)

    # --- the protocol ---

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Encode rows, `[B T]` or, for choices and for both orders of a pair, `[B S T]`.

        Returns:
          hidden: of the encoder, `[B S T]` as `[B*S T]`, the last entry being what the head reads: the last layer, or
          what `layers` and `mix` make. pooled: `[B S D]`, the vector of every text.
        """
        del carry  # a text begins from nothing
        rows, several = flat(inputs)
        outputs = self.body(rows, (), train)
        mask = rows.get("mask")
        hidden = outputs.hidden
        if self._chosen() != (-1,):
            layers = [hidden[index] for index in self._chosen()]
            if self.mix:
                top = self.heads.mix(side_by_side(layers), mask).astype(hidden[-1].dtype)
            else:
                top = jnp.concatenate(layers, axis=-1)
            hidden = (*hidden[:-1], top)
        vectors = self._vectors(outputs, hidden[-1], rows)
        vectors = vectors.reshape(-1, several * vectors.shape[1], vectors.shape[2])
        return Outputs(hidden, compared(vectors) if self.compare else vectors, ())

    def _vectors(self, outputs: Outputs, top: Float[Array, "B T D"], rows: Inputs) -> Float[Array, "B S D"]:
        if self.pool:
            return POOLS[self.pool](top, rows.get("mask"))[:, None]
        if outputs.pooled is not None and self._chosen() == (-1,):
            return outputs.pooled
        return at_positions(top, rows.get("cls_positions"))

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """What the head's last product is given of some vectors, one row an outcome, and the biases."""
        return self.heads.call("readout", rows)

    def head(self, name: str, *features: Array) -> Any:
        """`head(TASK, ...)`, the scores; `"mix"`, the raw weights of the mix; `"language_model"` of states `[N D]`, the
        encoder's readout of them; or any method of the head by its name."""
        if name == self.task:
            return self.heads.call("__call__", *features)
        if name == "mix" and self.mix:
            return self.heads.mix.weights
        if name == "language_model" and self.language_model:
            return self.body.readout(*features)
        if name in ("mix", "language_model") or not hasattr(HEADS[self.task], name):
            raise ValueError(f"this model for {self.task!r} has no head {name!r}")
        return self.heads.call(name, *features)

    def touch(self, inputs: Inputs) -> Any:
        """Run encoder and head once, so that `init` makes every parameter."""
        outputs = self(inputs)
        told = self.heads.call("touch", outputs)
        return (told, self.body.touch(flat(inputs)[0])) if self.language_model else told

    def init_carry(self, batch_size: int) -> Carry:
        """No state: a text is a row."""
        del batch_size
        return ()

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the encoder."""
        if len(shapes["tokens"]) > 2:
            shapes = {name: (shape[0] * shape[1], *shape[2:]) for name, shape in shapes.items()}
        return self._encoder().flops(shapes)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the scores of `rows` vectors."""
        options = {"dropout": self.dropout, **(self.options or {})}
        head = HEADS[self.task](self.head_width(), self.outcomes(), {}, **options, parent=None)
        return 2.0 * head.products(rows)

    def language_model_flops(self, rows: int) -> float:
        """Forward FLOPs of the encoder's own readout of `rows` states."""
        return self._encoder().readout_flops(rows)


def compared(pairs: Float[Array, "B 2 D"]) -> Float[Array, "B 1 4*D"]:
    """Both vectors of every pair, their difference without its sign, and their product."""
    u, v = pairs[:, 0], pairs[:, 1]
    return jnp.concatenate([u, v, jnp.abs(u - v), u * v], axis=-1)[:, None]


def flat(inputs: Inputs) -> tuple[dict[str, Array], int]:
    """Inputs with the choices of a row as rows of their own, `[B S T]` as `[B*S T]`, and S (1 where there are none)."""
    several = inputs["tokens"].ndim - 1
    if several == 1:
        return dict(inputs), 1
    return {name: leaf.reshape(-1, *leaf.shape[2:]) for name, leaf in inputs.items()}, inputs["tokens"].shape[1]


def tiny() -> Model:
    """A test-sized BERT that tells three labels."""
    sizes = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "max_len": 24}
    return Model(encoder={"name": "bert", "vocab_size": 53, **sizes}, labels=("a", "b", "c"))

"""A model with its parameters and tokenizer: which methods it has what is needed for, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctxjax import config as configs
from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.inference import TOKENS_PER_BATCH, Runner
from ctxjax.interop.files import Published
from ctxjax.reading import Reader, make_reader

# How a run was computed, which changes no value: here for one device and quick compilation.
_EXECUTION = {"remat": False, "attention_implementation": None, "groups": 0, "each_distinct": False}


class Opened:
    """A model with its parameters and tokenizer, and what it can do.

    Attributes:
      config: the `model` sub-dict of a config, with which `model` was built.
      model: the linen module. params: its parameters, nested by path name. tokenizer: text to ids.
      missing: heads without parameters in what was loaded, of "pooler", "mlm", "nsp", "softmax".
      notes: one sentence for everything in the files that was left out.
      meta: meta.json of a run of ours; empty for published weights.
    """

    def __init__(
        self, published: Published, path: str, meta: Mapping[str, Any] | None = None, *,
        dtype: str = "float32", tokens_per_batch: int = TOKENS_PER_BATCH,
    ):  # fmt: skip
        execution = {"dtype": dtype, **_EXECUTION}
        module = configs.build("model", published.config)
        self.model = module.clone(**{k: v for k, v in execution.items() if hasattr(module, k)})
        self.config: dict[str, Any] = dict(published.config)
        self.tokenizer: Any = published.tokenizer
        self.missing, self.notes = published.missing, published.notes
        self.path, self.meta = path, dict(meta or {})
        params = dict(published.params)
        if "pooler" in self.missing:  # the encoder computes it whether it is wanted or not
            width = self.config["width"]
            params |= {
                "pooler/kernel": np.zeros((width, width), np.float32),
                "pooler/bias": np.zeros(width, np.float32),
            }
        self.runner = Runner(self.model, tree.unflatten(params), tokens_per_batch)

    def __repr__(self) -> str:
        lacks = f", without {', '.join(self.missing)}" if self.missing else ""
        return f"<{self.kind} {self.path!r}: {tree.count(self.params):,} parameters{lacks}; it can {listed(self.can)}>"

    @property
    def params(self) -> Any:
        """Nested dict of the parameters, on the default device."""
        return self.runner.params

    @property
    def kind(self) -> str:
        """The name of the model's module: "bert", "bilm", or a dotted one of your own."""
        return self.config["name"]

    @property
    def can(self) -> tuple[str, ...]:
        """Which of the methods this model has what is needed for."""
        if self.tokenizer is None or self.predicts == "tags":
            return ()
        if ("mlm" if self.predicts == "masked" else "softmax") in self.missing or self.config.get("splits"):
            return ("embed",)
        more = {"masked": ("fill_mask", "score"), "next": ("score", "score_next", "generate"), "neighbours": ("score",)}
        more["target"] = ("translate",)
        more["context"] = ("vector", "nearest", "classify") if self.config.get("labels") else ("vector", "nearest")
        found = ("embed", *more.get(self.predicts, ()))
        return tuple(name for name in found if not (self.backward and name in ("score_next", "generate")))

    @property
    def backward(self) -> bool:
        """Whether the model reads texts from their end, as its run was told to (`source.direction`)."""
        return self.meta.get("config", {}).get("source", {}).get("direction") == "backward"

    @property
    def predicts(self) -> str:
        return getattr(self.model, "predicts", "")

    def need(self, method: str) -> Reader:
        """What turns texts into inputs; raises where the model has not what a method needs."""
        if method in self.can:
            return make_reader(self.tokenizer, self.config, self.predicts, self.backward)
        if self.tokenizer is None:
            why = "no vocabulary lies beside it"
        elif self.predicts == "tags":
            why = "it is a tagger, which python -m ctxjax.evaluate runs on files of tagged words"
        elif method in ("vector", "nearest"):
            why = "its vectors of a word depend on the text around it"
        elif method == "classify":
            why = "it has no labels"
        elif self.predicts == "context":
            why = "its vectors are static, and it gives no text a probability"
        elif self.predicts == "target":
            why = "its decoder tells a target from a source"
        elif method == "fill_mask" and self.predicts != "masked":
            why = "it predicts words from those beside them, and has no masked position"
        elif method == "translate":
            why = "it has no decoder that reads a source"
        elif method in ("generate", "score_next") and self.predicts != "next":
            why = "it predicts words from both sides"
        elif method in ("generate", "score_next") and self.backward:
            why = "it reads texts from their end, and so predicts the word before"
        elif self.config.get("splits"):
            why = "its softmax is split, and only vectors are read from such a model"
        else:
            why = f"its {'masked-word head' if self.predicts == 'masked' else 'softmax'} is not in the file"
        raise ConfigError(f"{self.path} cannot {method}: {why}; it can {listed(self.can)}")


def texts_of(texts: Any) -> list[Any]:
    """One string is one text; a list of strings is several, a list of lists of words too."""
    if isinstance(texts, str):
        return [texts]
    return list(texts)


def choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(known)}")


def listed(names: Sequence[str]) -> str:
    return " and ".join(names) or "give its parameters alone"

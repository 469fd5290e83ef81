"""What all sources of a prepared corpus share: opening it, its tokenizer, and the way to another process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.data.corpus import Corpus

State = dict[str, Any]


class CorpusSource:
    """A source over a split of what `python -m ctxjax.prepare` wrote.

    Attributes whose names begin with an underscore are what a source has made of its data. They stay behind when it is
    sent to another process, which makes its own.

    Attributes:
      corpus: the split.
    """

    def __init__(self, corpus: str | os.PathLike[str], split: str, verify: bool, kind: str = ""):
        """Open the split.

        Args:
          corpus: the folder. split: "train" or "heldout".
          verify: compare the digests of the shards before use, and not only of each part when it is read.
          kind: of the tokenizer that the source needs; "" for any.

        Raises:
          ConfigError: no such corpus or split, or one of another kind.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to what python -m ctxjax.prepare --output wrote")
        self.corpus = Corpus(corpus, split, verify)
        found = self.corpus.manifest["tokenizer"]["kind"]
        if kind and found != kind:
            raise ConfigError(
                f"config.source.corpus={os.fspath(corpus)!r} holds {found} pieces; {self._name} needs a corpus made "
                f"with --tokenizer {kind}"
            )
        self.forget()

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def forget(self) -> None:
        """Begin with nothing made of the data."""
        self._lock = threading.Lock()
        self._passes: dict[tuple[int, int], Any] = {}

    def of_pass(self, key: tuple[int, int], make: Callable[[], Any]) -> Any:
        """What `make()` gives for a seed and a pass, made once; the last two stay."""
        found = self._passes.get(key)
        if found is None:
            with self._lock:
                found = make()
                self._passes = {**dict(list(self._passes.items())[-1:]), key: found}
        return found

    def __getstate__(self) -> State:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: State) -> None:
        self.__dict__.update(state)
        self.forget()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the corpus."""
        return self.corpus.tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return self.corpus.manifest["tokenizer"]["pieces"]

    def fingerprint_of(self, *fields: str) -> State:
        """The corpus's fingerprint, and the fields that decide the rows beside seed and batch size."""
        return {"source": self._name, **self.corpus.fingerprint, **{name: getattr(self, name) for name in fields}}

"""`python -m ctxjax.features --config FILE.py`: what frozen language models make of a tagger's sentences, stored once.

    python -m ctxjax.features --config experiments/taglm/tag.py --config.source.corpus=DIR \
        --config.source.vectors_of='["runs/forward", "runs/backward"]'

Every model of `config.source.vectors_of` is opened as `ctxjax.load` does and gives its top layer for all words of the
splits. The vectors are stored beside the corpus (or in the cache) under the digests of model and text, and mapped into
memory by the source; what is there already is left. The last line says what `config.model.features` has to be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ctxjax import cli


def store(source: Any, number: int, model: Any) -> int:
    """Store the vectors of all words of a source by one of its models; returns their width.

    Args:
      source: a `ctxjax.data.sources.tagged.Source`.
      number: of the model among `source.vectors_of`.
      model: it, as `ctxjax.load` opens it, or a function that does so, called where there is something to do.

    Raises:
      ConfigError: the model gives a text other words than it was given.
    """

    def build(folder: Any) -> None:
        import numpy as np
        from tqdm import tqdm

        from ctxjax.config import ConfigError

        opened = model() if callable(model) else model
        if "embed" not in opened.can:
            raise ConfigError(f"config.source.vectors_of: {source.vectors_of[number]} gives no vectors")
        sentences = source.sentences
        words = sum(len(one.words) for one in sentences)
        rows, filled = None, 0
        made = opened.stream((list(one.words) for one in sentences), layers="top")
        where = f"{source.file(source.split)} by {source.vectors_of[number]}"
        for one, told in zip(sentences, tqdm(made, where, len(sentences), disable=None, dynamic_ncols=True)):
            vectors = told.layers[0]
            if len(vectors) != len(one.words):
                raise ConfigError(f"{where}: {len(vectors)} vectors of the {len(one.words)} words at line {one.line}")
            if rows is None:
                shape = (words, vectors.shape[1])
                rows = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
            rows[filled : filled + len(vectors)] = vectors
            filled += len(vectors)
        assert rows is not None and filled == words
        rows.flush()

    return int(source.open_store(number, build).shape[1])


def main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser)
    parser.add_argument("--splits", default="train,heldout,test", help="default: train,heldout,test")
    args, config = cli.parse(parser, argv)

    import functools

    from ctxjax import config as configs
    from ctxjax import pretrained
    from ctxjax.config import ConfigError

    if "vectors_of" not in config.source or not config.source.vectors_of:
        raise ConfigError("config.source.vectors_of names no model: set it to a JSON list of what ctxjax.load opens")
    widths: list[int] = []
    for number, path in enumerate(config.source.vectors_of):
        opened = functools.cache(functools.partial(pretrained.load, path))
        for split in args.splits.split(","):
            source = configs.build("source", {**config.source, "split": split})
            width = store(source, number, opened)
            print(f"{source.file(split)}: {width} numbers a word by {path}", file=sys.stderr)
        widths.append(width)
    print(f"--config.model.features={sum(widths)}")
    return 0


if __name__ == "__main__":
    cli.main_guard(main)

"""`python -m ctxjax.features --config FILE.py`: what frozen language models make of a tagger's sentences, stored once.

    python -m ctxjax.features --config experiments/taglm/tag.py --config.source.corpus=DIR \
        --config.source.vectors_of='["runs/forward", "runs/backward"]'
    python -m ctxjax.features --config experiments/ner/features.py:kind=elmo --config.source.corpus=DIR \
        --config.source.vectors_of='["runs/elmo"]'

Every model of `config.source.vectors_of` is opened as `ctxjax.load` does and gives the layers `config.source.layers`
for all words of the splits. The vectors are stored beside the corpus (or in the cache) under the digests of model and
words, and mapped into memory by the source; what is there already is left. The last line says what has to be told the
model. With --all every layer is stored, and no choice of layers runs the models again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ctxjax import cli


def store(source: Any, number: int, model: Any) -> Any:
    """Store the vectors of all words of a source by one of its models; returns them, `[words, layers, width]`.

    Args:
      source: a `ctxjax.data.sources.tagged.Source`, or what has its `sentences`, `kind` and `open_store`.
      number: of the model among `source.vectors_of`.
      model: it, as `ctxjax.load` opens it, or a function that does so, called where there is something to do.

    Raises:
      ConfigError: the model gives a text other words than it was given.
    """

    def build(folder: Any) -> None:
        from tqdm import tqdm

        from ctxjax.config import ConfigError

        opened = model() if callable(model) else model
        if "embed" not in opened.can:
            raise ConfigError(f"config.source.vectors_of: {source.vectors_of[number]} gives no vectors")
        sentences, where = source.sentences, f"{source.file(source.split)} by {source.vectors_of[number]}"
        made = _vectors(opened, sentences, source.kind, where)
        _write(folder, tqdm(made, where, len(sentences), disable=None, dynamic_ncols=True), sentences)

    return source.open_store(number, build)


def _vectors(opened: Any, sentences: Sequence[Any], kind: Any, where: str) -> Any:
    """`[layers, words, width]` of each sentence."""
    import itertools

    from ctxjax.config import ConfigError
    from ctxjax.data import stored

    counts: Any = ()
    if kind.context:
        reader, longest = opened.need("embed"), opened.runner.longest
        if longest and kind.context + reader.marks > longest:
            raise ConfigError(
                f"config.source.context={kind.context} is more than the {longest - reader.marks} pieces "
                f"that {where.rpartition(' by ')[2]} reads at once beside its marks"
            )
        counts = (int(n) for one in sentences for n in _pieces(reader.encode(list(one.words)), len(one.words)))
    ours, theirs = itertools.tee(stored.texts_of(sentences, counts, kind.context))
    layers = "top" if kind.layers in ("top", "-1") else "all"
    told = opened.stream((words for words, _ in ours), layers=layers, pool=kind.pool)
    for one, (words, first), found in zip(sentences, theirs, told):
        if found.layers.shape[1] != len(words):
            raise ConfigError(
                f"{where}: {found.layers.shape[1]} vectors of the {len(words)} words round line {one.line}"
            )
        chosen = kind.choose(found.layers.shape[0]) if layers == "all" else [0]
        yield found.layers[chosen[0] : chosen[-1] + 1, first : first + len(one.words)]


def _pieces(encoded: Any, words: int) -> Any:
    """How many pieces every word has."""
    import numpy as np

    return np.bincount(encoded.owners, minlength=words)


def _write(folder: Any, made: Any, sentences: Sequence[Any]) -> None:
    """vectors.npy `[words, layers, width]` of all sentences one behind the other."""
    import numpy as np

    words, rows, filled = sum(len(one.words) for one in sentences), None, 0
    for vectors in made:
        if rows is None:
            shape = (words, len(vectors), vectors.shape[2])
            rows = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
        rows[filled : filled + vectors.shape[1]] = vectors.swapaxes(0, 1)
        filled += vectors.shape[1]
    assert rows is not None and filled == words
    rows.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser)
    parser.add_argument("--splits", default="train,heldout,test", help="default: train,heldout,test")
    parser.add_argument("--all", action="store_true", help="store all layers, whatever config.source.layers are")
    args, config = cli.parse(parser, argv)

    import functools

    from ctxjax import config as configs
    from ctxjax import pretrained
    from ctxjax.config import ConfigError
    from ctxjax.data import stored

    if "vectors_of" not in config.source or not config.source.vectors_of:
        raise ConfigError("config.source.vectors_of names no model: set it to a JSON list of what ctxjax.load opens")
    fields = {**config.source, **({"layers": "all"} if args.all else {})}
    shapes: list[tuple[int, int]] = []
    for number, path in enumerate(config.source.vectors_of):
        opened = functools.cache(functools.partial(pretrained.load, path))
        for split in args.splits.split(","):
            source = configs.build("source", {**fields, "split": split})
            _, layers, width = store(source, number, opened).shape
            print(f"{source.file(split)}: {layers} x {width} numbers a word by {path}", file=sys.stderr)
        chosen = stored.Kind(config.source.get("layers", "top")).choose(layers) if args.all else range(layers)
        shapes.append((len(chosen), width))
    several = stored.Kind(config.source.get("layers", "top")).is_range
    layers = f" --config.model.feature_layers={shapes[0][0]}" if several else ""
    print(f"--config.model.features={sum(width for _, width in shapes)}{layers}")
    return 0


if __name__ == "__main__":
    cli.main_guard(main)

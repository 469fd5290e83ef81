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

from ctxjax import cli


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
    from ctxjax import pretrained, storing
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
            _, layers, width = storing.store(source, number, opened).shape
            print(f"{source.file(split)}: {layers} x {width} numbers a word by {path}", file=sys.stderr)
        chosen = stored.Kind(config.source.get("layers", "top")).choose(layers) if args.all else range(layers)
        shapes.append((len(chosen), width))
    several = stored.Kind(config.source.get("layers", "top")).is_range
    layers = f" --config.model.feature_layers={shapes[0][0]}" if several else ""
    print(f"--config.model.features={sum(width for _, width in shapes)}{layers}")
    return 0


if __name__ == "__main__":
    cli.main_guard(main)

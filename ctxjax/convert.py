"""`python -m ctxjax.convert SRC DST --to hf|elmo|arpa|word2vec|glove|fasttext|ctxjax`: published weights in and out.

SRC is anything that `ctxjax.load` opens, or a TensorFlow checkpoint of google-research/bert. `--to ctxjax` writes a run
folder with one checkpoint, from which a config's `init_from` goes on; the others write the published layouts.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctxjax import cli

if TYPE_CHECKING:
    from ctxjax.interop.files import Published

FORMATS = {  # the kinds of models each has a place for
    "hf": ("bert", "gpt", "gpt2"),
    "elmo": ("bilm",),
    "arpa": ("ngram",),
    "word2vec": ("word2vec", "glove", "fasttext"),
    "glove": ("word2vec", "glove", "fasttext"),
    "fasttext": ("fasttext",),
    "ctxjax": (),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.convert", description="Convert weights between ctxjax and the published layouts."
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a run folder, a Hugging Face BERT, GPT or GPT-2 folder, an ELMo folder (or its HDF5 weights), an ARPA "
        "file, a file of word vectors (word2vec, GloVe, fastText), or a TensorFlow BERT checkpoint (folder or prefix; "
        "needs TensorFlow, extra [tf])",
    )
    parser.add_argument("target", metavar="DST", help="a folder that does not exist yet, or is empty; a file for arpa")
    parser.add_argument(
        "--to",
        required=True,
        choices=tuple(FORMATS),
        help="hf: safetensors for transformers; elmo: options.json and HDF5 for bilm-tf and AllenNLP; arpa: one file, "
        "an n-gram model for KenLM and SRILM; word2vec: vectors.bin and .txt; glove: vectors.txt; fasttext: model.bin "
        "and .vec; ctxjax: a run",
    )
    parser.add_argument("--step", type=int, help="which checkpoint of a run; default: the newest")
    return parser


def convert(source: str, target: str, to: str, step: int | None = None) -> tuple[str, ...]:
    """Convert a model; returns one sentence for everything that was left out.

    Raises:
      ConfigError: SRC cannot be read, DST is not empty, or the layout has no place for this kind of model.
    """
    from ctxjax import paths
    from ctxjax.config import ConfigError
    from ctxjax.formats import HF
    from ctxjax.interop import elmo, fasttext_bin, word_vectors

    folder = paths.local(target, "DST")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder")
    published, meta = read(source, step)
    kind = published.config["name"]
    if FORMATS[to] and kind not in FORMATS[to]:
        raise ConfigError(f"--to {to} is for models of kind {' or '.join(FORMATS[to])}, and {source} is a {kind!r}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if to == "arpa":
        return (*published.notes, *write_arpa(folder, published, source))
    # Beside the target and renamed at the end, so that a folder under its name is whole.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
        inner = pathlib.Path(made) / "model"
        if to == "ctxjax":
            notes = write_run(inner, published, meta, source)
        else:
            writers = {"elmo": elmo.write, "fasttext": fasttext_bin.write}
            writers |= {"word2vec": word_vectors.write_word2vec, "glove": word_vectors.write_glove}
            notes = (HF[kind].write if to == "hf" else writers[to])(inner, published)
        if folder.exists():
            folder.rmdir()
        os.rename(inner, folder)
    return (*published.notes, *notes)


def read(source: str, step: int | None = None) -> tuple[Published, dict[str, Any]]:
    """A model in our names, from anything that can be converted."""
    from ctxjax import formats
    from ctxjax.interop import tf_bert

    place = pathlib.Path(source)
    is_tf = tf_bert.is_tf_bert(place) and not (place.is_dir() and formats.is_hf(place))
    return (tf_bert.read(place), {}) if is_tf else formats.read(source, step)


def write_arpa(path: pathlib.Path, published: Published, source: str) -> tuple[str, ...]:
    """An ARPA file, which holds back-off models alone."""
    from ctxjax.config import ConfigError
    from ctxjax.ngrams import arpa

    if path.is_dir():
        raise ConfigError(f"{path} is a folder, and an ARPA model is one file; name it as in {path / 'model.arpa'}")
    if published.config["smoothing"] != "kneser_ney":
        raise ConfigError(
            f"{source} is smoothed by {published.config['smoothing']}, which an ARPA file cannot hold; count with "
            "--config.model.smoothing=kneser_ney"
        )
    arpa.write(path, published.params, arpa.arpa_words(published.tokenizer), published.config["order"])
    return ()


def write_run(folder: pathlib.Path, published: Published, meta: dict[str, Any], source: str) -> tuple[str, ...]:
    """A run folder with one checkpoint of parameters alone, at the step of the run that it comes from, or 0."""
    import jax.numpy as jnp

    import ctxjax
    from ctxjax import tree
    from ctxjax.checkpoint import Checkpoints
    from ctxjax.step import TrainState

    folder.mkdir(parents=True)
    files: dict[str, str] = {}
    if published.tokenizer is not None:
        published.tokenizer.save(folder / "tokenizer")
        files = {f"tokenizer/{path.name}": os.fspath(path) for path in sorted((folder / "tokenizer").iterdir())}
    config = {"model": published.config}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    step = int(meta.get("step", 0))
    params = tree.unflatten({name: jnp.asarray(array) for name, array in published.params.items()})
    state = TrainState(step=jnp.asarray(step, jnp.int32), params=params, opt_state=())
    about = {
        "config": config,
        "tokenizer": published.tokenizer.digest() if published.tokenizer is not None else None,
        "data": {},
        "code": {"version": ctxjax.__version__},
        "converted_from": pathlib.Path(source).name,
    }
    saver = Checkpoints(folder / "checkpoints")
    saver.save(step, state, about, files, block=True)
    saver.close()
    return ("the optimiser's state was left out",) if meta else ()


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    options = make_parser().parse_args(argv)
    notes = convert(options.source, options.target, options.to, options.step)
    print(f"wrote {options.target} ({options.to}) from {options.source}")
    for note in notes:
        print(note)


if __name__ == "__main__":
    cli.main_guard(main)

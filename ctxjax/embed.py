"""`python -m ctxjax.embed MODEL TEXT --output FILE`: word-aligned vectors of a text file, one text a line.

The file is in the layout of ELMo's tools: a dataset for every line, named by its number from 0, of shape
`[layers, words, width]` in float32, and `sentence_to_index`, JSON from sentence to number. An npz holds the same under
the same names. Memory is bounded whatever the size of the text, and the file appears under its name only when whole.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ctxjax import cli

INDEX_LIMIT = 64 << 20  # characters of text whose sentences are listed in sentence_to_index
INDEX = "sentence_to_index"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.embed",
        description="Write word-aligned vectors of a text file, one text a line, to HDF5 (ELMo's layout) or npz.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a Hugging Face BERT folder or an ELMo folder")
    parser.add_argument("text", metavar="TEXT", help="UTF-8 text, one sentence a line; '-' is standard input")
    parser.add_argument("--output", required=True, metavar="FILE", help="ends in .hdf5, .h5 or .npz; replaced if there")
    parser.add_argument("--layers", choices=("all", "top", "mix"), default="all", help="default: all")
    parser.add_argument(
        "--split",
        choices=("whitespace", "model"),
        default="whitespace",
        help="words are what stands between blanks (the default), or what the model's tokenizer takes for words",
    )
    parser.add_argument("--pool", choices=("mean", "first"), default="mean", help="of a word in several pieces")
    parser.add_argument(
        "--mix", metavar="S,S,...", help="learned scalars of --layers mix, one a layer, before the softmax"
    )
    parser.add_argument("--stateful", action="store_true", help="a biLM's state goes on from line to line")
    parser.add_argument("--step", type=int, help="which checkpoint of a run; default: the newest")
    parser.add_argument("--tokens-per-batch", type=int, default=4096, metavar="N", help="bounds memory; default: 4096")
    return parser


class Hdf5Sink:
    """Datasets of an HDF5 file."""

    def __init__(self, path: pathlib.Path):
        import h5py

        self._file = h5py.File(path, "w")

    def add(self, name: str, values: Any) -> None:
        self._file.create_dataset(name, data=values)

    def finish(self, index: dict[str, str]) -> None:
        import h5py

        self._file.create_dataset(INDEX, (1,), dtype=h5py.string_dtype(encoding="utf-8"))[0] = json.dumps(index)

    def close(self) -> None:
        self._file.close()


class NpzSink:
    """Members of an npz archive, written one after another; `sentence_to_index.json` is plain JSON."""

    def __init__(self, path: pathlib.Path):
        import zipfile

        self._file = zipfile.ZipFile(path, "w", allowZip64=True)

    def add(self, name: str, values: Any) -> None:
        import numpy as np

        with self._file.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values, allow_pickle=False)

    def finish(self, index: dict[str, str]) -> None:
        self._file.writestr(f"{INDEX}.json", json.dumps(index))

    def close(self) -> None:
        self._file.close()


SINKS = {".hdf5": Hdf5Sink, ".h5": Hdf5Sink, ".npz": NpzSink}


def read_lines(path: str, counts: dict[str, int]) -> Iterator[tuple[int, str, int]]:
    """`(number, line, bytes)`; lines end at "\\n" alone, bytes that are not UTF-8 are replaced and counted."""
    file = sys.stdin.buffer if path == "-" else open(path, "rb")
    with file:
        for number, raw in enumerate(file):
            try:
                line = raw.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError:
                line = raw.decode("utf-8", "replace")
                counts["not UTF-8"] += 1
            yield number, line.strip(), len(raw)


def embed_file(model: Any, text: str, output: pathlib.Path, options: argparse.Namespace) -> dict[str, int]:
    """Write the vectors of every line that has a word; returns counts of what was done and of what was out of order."""
    from tqdm import tqdm

    from ctxjax.config import ConfigError

    counts: dict[str, int] = {}
    counts |= dict.fromkeys(("lines", "words", "empty", "not UTF-8", "in windows", "out of index"), 0)
    numbers: collections.deque[int] = collections.deque()
    index: dict[str, str] = {}
    indexed = 0
    part = output.with_name(f".{output.name}.{os.getpid()}.partial")
    sink = SINKS[output.suffix](part)
    size = os.path.getsize(text) if text != "-" else None

    def texts() -> Iterator[Any]:
        for number, line, length in read_lines(text, counts):
            words = line.split()
            if words:
                numbers.append(number)
                yield words if options.split == "whitespace" else line
            else:
                counts["empty"] += 1
            bar.update(length)

    try:
        with tqdm(total=size, unit="B", unit_scale=True, file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
            for one in model.stream(
                texts(), options.layers, pool=options.pool, mix=_scalars(options.mix), stateful=options.stateful
            ):
                number = numbers.popleft()
                if not one.words:
                    counts["empty"] += 1
                    continue
                sink.add(str(number), one.layers)
                sentence = " ".join(one.words)
                indexed += len(sentence)
                if indexed <= INDEX_LIMIT:
                    index[sentence] = str(number)
                counts["lines"] += 1
                counts["words"] += len(one.words)
                counts["in windows"] += one.windows > 1
                counts["out of index"] += indexed > INDEX_LIMIT
        if not counts["lines"]:
            raise ConfigError(f"{text} has no line with a word in it")
        sink.finish(index)
        sink.close()
        os.replace(part, output)
    except BaseException:
        sink.close()
        part.unlink(missing_ok=True)
        raise
    return counts


def _scalars(text: str | None) -> list[float] | None:
    """`--mix 0.1,0.2,0.7` as numbers."""
    if text is None:
        return None
    try:
        return [float(item) for item in text.split(",")]
    except ValueError:
        from ctxjax.config import ConfigError

        raise ConfigError(f"--mix {text!r} is not a list of numbers such as 0.1,0.2,0.7") from None


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    options = make_parser().parse_args(argv)
    from ctxjax import paths
    from ctxjax.config import ConfigError

    output = paths.local(options.output, "--output")
    if output.suffix not in SINKS:
        raise ConfigError(f"--output {output} must end in one of {', '.join(SINKS)}")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: the folder {output.parent} does not exist")
    if options.text != "-" and not os.path.isfile(options.text):
        raise ConfigError(f"the text file {options.text} does not exist")

    from ctxjax import pretrained

    model = pretrained.load(options.model, options.step, tokens_per_batch=options.tokens_per_batch)
    counts = embed_file(model, options.text, output, options)
    remarks = [
        f"{counts[name]} {what}"
        for name, what in (
            ("empty", "without a word, which have no dataset"),
            ("not UTF-8", "with bytes that are not UTF-8, which were replaced"),
            ("in windows", "longer than the model reads at once, which were read in overlapping windows"),
            ("out of index", f"left out of {INDEX}, which ends at {INDEX_LIMIT:,} characters"),
        )
        if counts[name]
    ]
    for line in (f"wrote {counts['lines']} lines of {counts['words']} words to {output}", *remarks):
        print(line if line.startswith("wrote") else f"lines: {line}")


if __name__ == "__main__":
    cli.main_guard(main)

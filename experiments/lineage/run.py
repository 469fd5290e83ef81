r"""The whole line on one text: every family trained on the same words, evaluated alike, side by side on one page.

    python experiments/lineage/run.py --text TEXT.jsonl... --output lineage                     # two CPU cores
    python experiments/lineage/run.py --text TEXT.jsonl... --output lineage --size accelerator  # one GPU or TPU

A part of the text of so many words is taken, passage by passage, by the digest of each; it is prepared once for each
kind of pieces and read the same number of times by each family (counts read it once). Every stage is a program of
this repository, printed before it runs; the same command continues after an interruption. The evaluations are those of
experiments/evaluate/without_labels.py, read from CTXJAX_DATA, and the last stage writes lineage.html.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import pathlib
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WORDS = {"cpu": 2_000_000, "accelerator": 40_000_000}
HELD_OUT = 400  # paragraphs beside the training text, one a line, for bits per character
LONGEST = 1_200  # characters of a held-out paragraph
PASSAGE = 300  # words of a passage
KINDS = {"words": "words", "pieces": "wordpiece", "bytes": "byte_bpe", "bpe": "bpe"}
PIECES = {"cpu": 16_000, "accelerator": 30_522}
# family -> config, kind of corpus; of both sizes
FAMILIES = {
    "n-gram": ("ngram/count.py:size=five", "words"),
    "NNLM": ("nnlm/pretrain.py:size=small", "words"),
    "word2vec": ("word2vec/pretrain.py:recipe=skipgram", "words"),
    "GloVe": ("glove/pretrain.py:size=small", "words"),
    "fastText": ("fasttext/pretrain.py:size=small", "words"),
    "ELMo": ("elmo/pretrain.py:size={elmo}", "words"),
    "AWD-LSTM": ("ulmfit/pretrain.py:size={ulmfit}", "words"),
    "GPT": ("gpt/pretrain.py:size={transformer}", "bpe"),
    "GPT-2": ("gpt2/pretrain.py:size={transformer}", "bytes"),
    "BERT": ("bert/pretrain.py:size={transformer}", "pieces"),
    "ModernBERT": ("modernbert/pretrain.py:size={transformer}", "pieces"),
}
SIZES = {
    "cpu": {"elmo": "demo", "ulmfit": "small", "transformer": "mini"},
    "accelerator": {"elmo": "small", "ulmfit": "ulmfit", "transformer": "small"},
}
# What the recipes of long runs need on a small text: steps small enough that there are hundreds of them, and a warm-up
# that ends. A step then has about 2,000 tokens in every family, but for GloVe, whose pairs are not tokens.
_VECTORS = {"batch_size": 2, "objective.scale": 2048}
_TRANSFORMER = {"batch_size": 16, "optim.schedule.warmup": "10 percent"}
SHORT = {
    "word2vec": _VECTORS,
    "fastText": _VECTORS,
    "GPT": {**_TRANSFORMER, "batch_size": 8, "optim.lr": 3e-4},  # at 1e-3 it stays with the unigrams
    "GPT-2": {**_TRANSFORMER, "batch_size": 8},
    "BERT": {**_TRANSFORMER, "optim.schedule.total": "100 percent", "optim.lr": 2e-4},  # at 5e-4 likewise
    "ModernBERT": _TRANSFORMER,
}
CHANGES = {"cpu": SHORT, "accelerator": {}}
EVERY = "5 percent"  # held-out figures, for the curves


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=pathlib.Path, nargs="+", required=True, help=".jsonl or .txt, perhaps .xz or .gz"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("lineage"), help="folder (default lineage/)"
    )
    parser.add_argument("--size", choices=tuple(WORDS), default="cpu", help="which sizes of the models (default cpu)")
    parser.add_argument("--words", type=float, help="how much of the text (default 2e6 on cpu, 4e7 on accelerator)")
    parser.add_argument("--passes", type=int, default=3, help="how often it is read (default 3)")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(FAMILIES), metavar="FAMILY", help=f"of {', '.join(FAMILIES)}"
    )
    parser.add_argument("--quick", action="store_true", help="a part of BLiMP and LAMBADA")
    options = parser.parse_args(argv)

    from ctxjax.stages import pieces_of, run_stages

    began, output = time.monotonic(), options.output
    output.mkdir(parents=True, exist_ok=True)
    families = options.only or list(FAMILIES)
    if not (output / "text.jsonl").exists():
        take_text(options.text, output, int(options.words or WORDS[options.size]))
    found = stages(output, options.size, options.passes, families, options.quick)
    (output / "suite").mkdir(exist_ok=True)
    if code := run_stages(left(found, output), pieces_of):
        return code
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes. The page: {output / 'lineage.html'}")
    return 0


def stages(
    output: pathlib.Path, size: str, passes: int, families: list[str], quick: bool
) -> list[tuple[str, list[str]]]:
    """What is run, in order: corpora, models, evaluations, page."""
    wanted = {name: FAMILIES[name] for name in families}
    found: list[tuple[str, list[str]]] = []
    for kind in dict.fromkeys(["words", *(kind for _, kind in wanted.values())]):  # senses count words
        arguments = ["-m", "ctxjax.prepare", "--input", str(output / "text.jsonl"), "--output", str(output / kind)]
        arguments += ["--tokenizer", KINDS[kind], "--heldout", "0.02", "--vocab_size", str(PIECES[size])]
        found.append((f"prepare {kind}", arguments + (["--lowercase"] if kind != "pieces" else [])))
    for name, (config, kind) in wanted.items():
        arguments = ["-m", "ctxjax.train", "--config", f"experiments/{config.format(**SIZES[size])}"]
        arguments += ["--workdir", str(output / name), f"--config.source.corpus={output / kind}"]
        if name != "n-gram":
            arguments += [f"--config.model.vocab_size=@{output / kind}", f"--config.total={passes} epochs"]
            arguments += [f"--config.{cadence}_every={EVERY}" for cadence in ("eval", "save")]
        arguments += [f"--config.{field}={value}" for field, value in CHANGES[size].get(name, {}).items()]
        found.append((f"train {name}", arguments))
    suite = f"experiments/evaluate/without_labels.py:size={'quick' if quick else 'full'}"
    for name in families:
        arguments = ["-m", "ctxjax.evaluate", "--workdir", str(output / name), "--config", suite]
        arguments += [f"--config.evals.text.texts={(output / 'heldout.txt').resolve()}", "--config.evals.text.limit=0"]
        arguments += [f"--config.evals.senses.corpus={output / 'words'}", "--output", str(suite_of(output, name))]
        found.append((f"evaluate {name}", [*arguments, "--record", str(output / "records")]))
    page = ["-m", "ctxjax.report", *(str(output / name) for name in families)]
    page += ["--suite", *(str(suite_of(output, name)) for name in families)]
    found.append(("page", [*page, "--page", str(output / "lineage.html")]))
    return found


def suite_of(output: pathlib.Path, name: str) -> pathlib.Path:
    """Where the evaluations of a family are written, and of which run: those of a later one are not there yet."""
    return output / "suite" / f"{name}.json"


def left(found: list[tuple[str, list[str]]], output: pathlib.Path) -> list[tuple[str, list[str]]]:
    """The stages without the evaluations that are newer than what they are of, which begin anew when they are run."""

    def done(title: str) -> bool:
        kind, _, name = title.partition(" ")
        suite, record = suite_of(output, name), output / name / "record.json"
        there = kind == "evaluate" and suite.exists() and record.exists()
        return there and suite.stat().st_mtime > record.stat().st_mtime

    return [(title, arguments) for title, arguments in found if not done(title)]


def take_text(paths: list[pathlib.Path], output: pathlib.Path, words: int) -> None:
    """Write text.jsonl, passages with so many words in all, and heldout.txt, a paragraph each of other passages.

    What is held out is in lower case, as every model of the line reads; the text is not, for capitals begin sentences.

    Which passages goes by a digest of each, so the part does not depend on the order of the files.
    """
    digests: dict[str, str] = {}
    total = 0
    for passage in passages(paths):
        digest = hashlib.sha256(passage.encode()).hexdigest()
        total += 0 if digest in digests else len(passage.split())
        digests[digest] = passage
    held: list[str] = []
    taken = 0
    print(f"{total:,} words in {len(digests):,} passages; {min(words, total):,} words are taken", file=sys.stderr)
    with open(output / ".text.part", "w", encoding="utf-8") as file:
        for digest in sorted(digests):
            passage = digests[digest]
            if len(held) < HELD_OUT:
                held += [text for text in passage.split("\n") if 100 <= len(text) <= LONGEST][:1]
            elif taken < words:
                file.write(json.dumps({"text": passage}, ensure_ascii=False) + "\n")
                taken += len(passage.split())
    (output / "heldout.txt").write_text("".join(f"{text.lower()}\n" for text in held), encoding="utf-8")
    (output / ".text.part").rename(output / "text.jsonl")


def passages(paths: list[pathlib.Path]) -> Iterator[str]:
    """Consecutive paragraphs of a document, at least `PASSAGE` words together, blanks made one."""
    openers = {".xz": lzma.open, ".gz": gzip.open}
    for path in paths:
        with openers.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                held: list[str] = []
                text = json.loads(line)["text"] if ".jsonl" in path.suffixes else line
                for paragraph in text.split("\n"):
                    words = paragraph.split()
                    held += [" ".join(words)] if len(words) >= 5 else []
                    if sum(one.count(" ") for one in held) >= PASSAGE:
                        yield "\n".join(held)
                        held = []


if __name__ == "__main__":
    sys.exit(main())

"""How fast `prepare` is beside the bare tokeniser, in one run, and how much memory it takes as the input grows.

    python experiments/bench/prepare.py [TEXT.jsonl[.gz|.bz2|.xz|.zst]] [--field text] [--vocab vocab.txt]

The bare rate is Hugging Face's `encode_batch` on paragraphs already in memory, on all cores. The rate of `prepare` is
that of the whole command: starting Python, decompressing, reading, splitting sentences, tokenising, writing shards and
checking them. The two alternate, so that a busy machine slows both. `--memory MEGABYTES...` adds the peak memory of all
processes of `prepare` together (proportional set size) on inputs of these sizes, documents being repeated with a
number where the text is too short.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def generated(size: int = 20_000_000) -> list[str]:
    """Documents of made-up words with the frequencies of real ones."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(2, 10))) for _ in range(50_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    documents, length = [], 0
    while length < size:
        sentences = []
        for _ in range(rng.randint(20, 400)):
            sentences.append(" ".join(rng.choices(words, cum_weights=weights, k=rng.randint(5, 35))).capitalize() + ".")
        documents.append("\n".join(" ".join(sentences[i : i + 8]) for i in range(0, len(sentences), 8)))
        length += len(documents[-1])
    return documents


def read(path: pathlib.Path, field: str) -> list[str]:
    from ctxjax.data import piecework, reading

    inputs = reading.describe([path], "auto")
    pieces = reading.read_pieces(inputs, {})
    return [d.text for p in pieces for c in p.chunks for d in piecework.documents(c, field, {}, set())]


def bare(paragraphs: list[str], vocab: pathlib.Path, lowercase: bool) -> tuple[int, float]:
    """(tokens, seconds) of `encode_batch`, a thousand paragraphs at a time."""
    from tokenizers.implementations import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(vocab), lowercase=lowercase)
    start, tokens = time.perf_counter(), 0
    for first in range(0, len(paragraphs), 1000):
        found = tokenizer.encode_batch(paragraphs[first : first + 1000], add_special_tokens=False)
        tokens += sum(map(len, found))
    return tokens, time.perf_counter() - start


def prepare(path: pathlib.Path, output: pathlib.Path, options: list[str]) -> tuple[int, float, float]:
    """(tokens, seconds, peak megabytes) of the whole command."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "ctxjax.prepare", "--input", str(path), "--output", str(output), *options]
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"prepare failed with exit code {process.returncode}")
    splits = json.loads((output / "manifest.json").read_text())["splits"]
    return sum(split["tokens"] for split in splits.values()), seconds, peak


def memory(group: int) -> float:
    """Megabytes of all processes of a process group; memory shared by several is counted once."""
    total = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                for line in (folder / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        except (OSError, ValueError):
            continue
    return total / 1024


def of_size(documents: list[str], size: int, path: pathlib.Path) -> None:
    """JSON lines of about `size` bytes."""
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        for number, document in enumerate(itertools.cycle(documents)):
            text = document if number < len(documents) else f"{document} Copy {number}."
            written += file.write(json.dumps({"text": text}) + "\n")
            if written >= size:
                return


def figures(result: dict) -> dict:
    """What the ledger shows of a record."""
    shown: dict = {}
    text = (
        f"{result['text']}, load {result['load_average_before']} before"
        if "load_average_before" in result
        else result["text"]
    )
    for kind, rates in result.get("tokens_per_second", {}).items():
        spread = {"median": statistics.median(rates), "low": min(rates), "high": max(rates), "unit": "tokens/s"}
        shown[f"{kind} ({text})"] = spread
    if "ratio" in result:
        shown[f"prepare over the bare tokeniser ({text})"] = result["ratio"]
    for size, peak in result["memory_mb"].items():
        shown[f"peak memory at {size} MB of {result['text']}"] = f"{peak} MB"
    return shown


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=pathlib.Path, help="text to measure on (default: generated)")
    parser.add_argument("--field", default="text")
    parser.add_argument("--vocab", type=pathlib.Path, help="WordPiece vocabulary (default: learned from the text)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="how often both are measured (default 3; 0: memory alone)"
    )
    parser.add_argument("--memory", type=int, nargs="*", default=[], metavar="MEGABYTES")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args(argv)
    from ctxjax import records
    from ctxjax.text import open_tokenizer

    cores = len(os.sched_getaffinity(0))
    os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = str(cores), "true"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        documents = read(options.text, options.field) if options.text else generated()
        path = options.text
        if path is None:
            path = folder / "generated.jsonl"
            of_size(documents, sum(map(len, documents)), path)
        result: dict = {
            "cores": cores,
            "text": options.text.name if options.text else "generated",
            "characters": sum(map(len, documents)),
        }
        vocab, flags = options.vocab, ["--field", options.field]
        if vocab is None:
            tokens, seconds, _ = prepare(path, folder / "learn", [*flags, "--vocab_size", "8000"])
            vocab = folder / "vocab" / "vocab.txt"
            shutil.copytree(folder / "learn" / "tokenizer", vocab.parent)
            result["with a vocabulary to learn"] = {"tokens": tokens, "seconds": round(seconds, 2)}
        tokenizer = open_tokenizer(vocab.parent if options.vocab is None else vocab)
        result["pieces"] = len(tokenizer)
        result["load_average_before"] = round(os.getloadavg()[0], 1)  # above the number of cores: others ran too
        flags += ["--vocab", str(vocab)]
        paragraphs = [line for document in documents for line in document.split("\n") if line]
        rates: dict[str, list[float]] = {"bare": [], "prepare": []}
        for _ in range(options.repeats):
            tokens, seconds = bare(paragraphs, vocab, tokenizer.options()["lowercase"])
            rates["bare"].append(tokens / seconds)
            tokens, seconds, peak = prepare(path, folder / "corpus", flags)
            rates["prepare"].append(tokens / seconds)
            print(f"bare {rates['bare'][-1]:,.0f} tokens/s, prepare {rates['prepare'][-1]:,.0f} tokens/s", flush=True)
        if options.repeats:
            result["tokens"] = tokens
            result["tokens_per_second"] = {kind: [round(rate) for rate in found] for kind, found in rates.items()}
            result["ratio"] = round(statistics.median(rates["prepare"]) / statistics.median(rates["bare"]), 3)
            print(f"prepare / bare = {result['ratio']}")
        result["memory_mb"] = {}
        for size in options.memory:
            of_size(documents, size * 1_000_000, folder / "grown.jsonl")
            tokens, seconds, peak = prepare(folder / "grown.jsonl", folder / "grown", flags)
            result["memory_mb"][str(size)] = round(peak)
            print(f"{size} MB of input: {peak:.0f} MB of memory, {tokens / seconds:,.0f} tokens/s", flush=True)
        if not options.no_record:
            print(records.write("bench_prepare", result | {"figures": figures(result)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

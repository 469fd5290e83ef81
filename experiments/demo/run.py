"""The demonstration: `bash launch/demo.sh`, or `python experiments/demo/run.py --minutes 10 --output demo`.

Takes the Wikipedia sample that gensim's wheel carries, prepares it twice (word pieces for BERT, words for ELMo),
pretrains both models on it, evaluates them on held-out articles beside unigram and bigram counts, and writes a page.
Every stage is an ordinary program of this repository, printed before it runs; each continues after an interruption.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Steps a minute of two idle 2.5 GHz cores, from whole runs: they turn minutes into a fixed number of steps, so the run
# is the same run on every machine.
STEPS_A_MINUTE = {"bert": 310, "elmo": 400}
SHARE = {"bert": 0.36, "elmo": 0.42}  # of the minutes; the rest goes to preparing, evaluating and the page


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="about how long on two cores (default 10)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("demo"), help="folder (default demo/)")
    options = parser.parse_args(argv)

    from ctxjax.stages import run_stages

    if options.minutes < 1:
        parser.error("--minutes must be at least 1")
    began = time.monotonic()
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    text = output / "wikipedia.jsonl"
    stages: list[tuple[str, list[str]]] = []
    if not text.exists():
        stages.append(("clean the Wikipedia sample", ["experiments/corpora/wikipedia_sample.py", str(text)]))
    for name, tokenizer, size in (("pieces", "wordpiece", 8000), ("words", "words", 10000)):
        stages.append(
            (
                f"learn a vocabulary and write shards: {name}",
                ["-m", "ctxjax.prepare", "--input", str(text), "--output", str(output / name), "--tokenizer", tokenizer]
                + ["--vocab_size", str(size), "--lowercase", "--heldout", "0.06"],
            )
        )
    for model, corpus in (("bert", "pieces"), ("elmo", "words")):
        steps = round(STEPS_A_MINUTE[model] * SHARE[model] * options.minutes)
        stages.append(
            (
                f"pretrain {model}: {steps} steps",
                ["-m", "ctxjax.train", "--config", f"experiments/{model}/pretrain.py:size=demo"]
                + ["--workdir", str(output / model), f"--config.source.corpus={output / corpus}"]
                + [f"--config.total={steps} steps"],
            )
        )
    stages.append(("evaluate and write the page", ["experiments/demo/page.py", str(output)]))
    if code := run_stages(stages):
        return code
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes. The page: {output / 'results.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

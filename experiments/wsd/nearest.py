r"""Word-sense disambiguation by the nearest sense: SemCor teaches, Senseval-2 and Senseval-3 all-words test.

Paper: Peters et al. 2018, "Deep contextualized word representations", section 5.3.
Expected: F1 on the fine-grained tasks of Raganato et al. 2017, which hold both tests here and three more: WordNet's
first sense 65.9, ELMo's first layer 67.4, its second 69.0, CoVe's second 64.7.
Hardware and time: two CPU cores, a quarter of an hour for a small model; SemCor's 37,000 sentences are read once.

    python -m ctxjax.evaluate --workdir runs/elmo runs/bert --config experiments/wsd/nearest.py

Files are looked for under CTXJAX_DATA. Words that SemCor does not have are answered where WordNet's dictionary is
given, as in --config.evals.wsd.first_senses=dict/index.sense; without it they cost recall.

Arguments: size=full (the only one), smoke.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    args = parse_arg(arg, size="full", smoke=False)
    if args.size != "full":
        raise ConfigError(f"size={args.size!r} is not one of full")
    config = ml_collections.ConfigDict()
    folder = "tasks/wsd"
    train, tests = f"{folder}/semcor3.jsonl.gz", tuple(f"{folder}/senseval{number}.jsonl.gz" for number in (2, 3))
    if args.smoke:
        train, tests = generated_senses()
    config.evals = {"wsd": {"name": "disambiguation", "train": train, "tests": tests, "first_senses": ""}}
    return config


def generated_senses() -> tuple[str, tuple[str]]:
    """Two files of the generated language, in which the sense of a word goes with the length of its sentence."""
    import json
    import pathlib

    from ctxjax.data.generated import documents, generated_corpus

    folder = pathlib.Path(generated_corpus("words"))
    for name, seed in (("taught.jsonl", 0), ("asked.jsonl", 1)):
        lines = []
        for number, sentences in enumerate(documents(40, seed)):
            words = sentences[0].split()
            sense = [["WordNet-eng30", f"1:0{len(words) % 2}:00::"]]
            tokens = [[word, word, "NN", sense if word != "." else []] for word in words]
            lines.append(json.dumps({"doc": str(number), "sent": "1", "tokens": tokens}))
        (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / "taught.jsonl"), (str(folder / "asked.jsonl"),)

r"""What a model knows without being taught a task: perplexity, grammar, last words, word senses, similarity, analogies.

Paper: Warstadt et al. 2020 (BLiMP); Paperno et al. 2016 (LAMBADA); Mikolov et al. 2013 (analogies); Finkelstein et al.
2001, Hill et al. 2015, Luong et al. 2013 (similarity); Miller et al. 1993 (SemCor); Salazar et al. 2020 (masked
models).
Expected: accuracies of other people's models, from memory and to be checked before use: BLiMP about 0.83 for GPT-2
large and 0.61 for a 5-gram model (Warstadt et al. 2020, table 3); LAMBADA 0.632 for GPT-2 xl (Radford et al. 2019).
Hardware and time: two CPU cores, a minute for vectors and counts, and about ten for a small Transformer, most of them
BLiMP; a masked model reads a row a piece, so `quick` takes 100 pairs of each paradigm.

    python -m ctxjax.evaluate --workdir runs/kn5 runs/gpt2 --config experiments/evaluate/without_labels.py:size=quick

Files are looked for under CTXJAX_DATA; --config.evals.NAME.FIELD=FILE names others, --only NAME runs one evaluator.

Arguments: size=quick|full (default full), smoke.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg

SIZES = ("quick", "full")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    args = parse_arg(arg, size="full", smoke=False)
    if args.size not in SIZES:
        raise ConfigError(f"size={args.size!r} is not one of {', '.join(SIZES)}")
    quick = args.size == "quick"
    config = ml_collections.ConfigDict()
    if args.smoke:
        config.evals = {"text": {"name": "perplexity", "texts": generated_texts(), "limit": 0}}
        return config
    words = {
        "wordsim": "EN-WS-353-ALL",
        "simlex": "EN-SIMLEX-999",
        "rare_words": "EN-RW-STANFORD",
        "rg65": "EN-RG-65",
        "mturk": "EN-MTurk-287",
    }
    config.evals = {
        "text": {"name": "perplexity", "texts": "lm/wikitext2/valid.txt", "limit": 500 if quick else 0},
        "blimp": {"name": "blimp", "pairs": "tasks/blimp/blimp.tar.xz", "limit": 100 if quick else 0},
        "lambada": {"name": "lambada", "texts": "tasks/lambada/lambada_test.jsonl", "limit": 500 if quick else 0},
        "analogies": {"name": "analogies", "questions": "words/questions-words.txt", "candidates": 30_000, "layer": 0},
        "senses": {"name": "senses", "tagged": "tasks/wsd/semcor3.jsonl.gz", "lemmas": 40, "corpus": ""},
        **{name: {"name": "similarity", "pairs": f"words/{file}.txt", "layer": 0} for name, file in words.items()},
    }
    return config


def generated_texts() -> str:
    """A file of held-out text of the generated language."""
    import pathlib

    from ctxjax.data.generated import documents, generated_corpus

    path = pathlib.Path(generated_corpus("words")) / "texts.txt"
    path.write_text("".join(f"{sentence}\n" for text in documents(5, seed=1) for sentence in text))
    return str(path)

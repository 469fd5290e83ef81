r"""n-gram language models: counts of all n-grams of a corpus, smoothed; one pass, no gradient.

Paper: Chen and Goodman 1999, "An Empirical Study of Smoothing Techniques for Language Modeling" (modified Kneser-Ney);
Kneser and Ney 1995, "Improved Backing-off for M-gram Language Modeling".
Expected: test perplexity of the Penn Treebank (Mikolov's preparation) 148 for Kneser-Ney of order 3 and 141 of order 5
(Mikolov 2012, "Statistical Language Models Based on Neural Networks", table 4.1).
Hardware and time: two CPU cores, some seconds for the Penn Treebank. The table must fit in memory; what counting cannot
hold is spilled to the run folder.

    python -m ctxjax.prepare --input TEXT... --output corpora/words --tokenizer words --vocab_size 50000
    python -m ctxjax.train --config experiments/ngram/count.py --workdir runs/kn5 --config.source.corpus=corpora/words
    python -m ctxjax.convert runs/kn5 kn5.arpa --to arpa

Arguments: size=unigram|bigram|trigram|five (default five), smoke.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, placeholder

SIZES = {"unigram": 1, "bigram": 2, "trigram": 3, "five": 5}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    args = parse_arg(arg, size="five", smoke=False)
    if args.size not in SIZES:
        raise ConfigError(f"size={args.size!r} is not one of {', '.join(SIZES)}")
    config = ml_collections.ConfigDict()
    config.model = {
        "name": "ngram",
        "order": SIZES[args.size],
        "smoothing": "kneser_ney",  # or add_k, ml
        "k": 1.0,  # of add_k; 1 is Laplace's rule
    }
    config.source = {"corpus": placeholder(str), "split": "train"}
    config.evals = {"heldout": {"split": "heldout"}}
    if args.smoke:
        from ctxjax.data.generated import generated_corpus

        config.source.corpus = generated_corpus("words")
    return config

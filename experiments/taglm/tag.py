"""TagLM: names or chunks of sentences, with what frozen language models make of them.

Paper: Peters et al. 2017, "Semi-supervised sequence tagging with bidirectional language models".
Expected: F1 of 91.93 +- 0.19 on the test set of CoNLL-2003 and 96.37 on CoNLL-2000's chunks with a forward and a
backward language model of the 1 Billion Word Benchmark, means of ten seeds.
Hardware and time: not given in the paper; a pass over the 14,041 sentences of CoNLL-2003 is 438 steps.

    python -m ctxjax.features --config experiments/taglm/tag.py --config.source.corpus=DIR \
        --config.source.vectors_of='["runs/forward", "runs/backward"]'
    python -m ctxjax.train --config experiments/taglm/tag.py --workdir runs/names --config.source.corpus=DIR \
        --config.source.vectors_of='["runs/forward", "runs/backward"]' --config.model.features=N

The first command stores the top layers of the models (any that ctxjax.load opens: two runs of
experiments/ulmfit/pretrain.py, one with direction=backward, or one of experiments/elmo/pretrain.py) and prints N.
Without `vectors_of` and `features` the second one trains the plain tagger that the paper compares with. DIR has
eng.train, eng.testa and eng.testb (`source.train`, `heldout` and `test` name others) in columns. The number of words
and the tags must be those of eng.train; where they are not, the error names them. To begin with the words of a file of
vectors, convert it (python -m ctxjax.convert FILE runs/vectors --to ctxjax), add --config.init_from.path=runs/vectors
--config.init_from.pattern=^embed/tokens and, for words that are not in eng.train, --config.source.vocab= with the path
of its tokenizer folder.

Arguments:
    size=names   two GRUs of 300 cells each way, characters by a GRU of 80 each way: the published tagger of names.
    size=chunks  two LSTMs of 200 cells each way, characters by 30 filters of width 3: the published chunker, of
        the third column of files as CoNLL-2000's (BIO).
    smoke        20 steps on generated text, in seconds.
The paper lowers the rate to 1e-4 and 1e-5 for five passes each once F1 on the held-out split has stopped rising; here
those are runs that begin with the last one's best checkpoint: --config.init_from.path=RUN --config.optim.lr=1e-4
--config.total="5 epochs". The vocabulary begins at random, the paper's with vectors of Collobert et al. 2011.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config
from ctxjax.text.tags import known_tags

NAMES = ("LOC", "MISC", "ORG", "PER")
CHUNKS = ("ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP")
# kinds, column and scheme of the files, words, cell, width, characters, their width
SIZES = {
    "names": (NAMES, -1, "IOB1", 17_495, "gru", 300, "gru", 80),
    "chunks": (CHUNKS, 2, "BIO", 16_000, "lstm", 200, "cnn", 30),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="names", smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    kinds, tag, read, words, cell, width, chars, char_width = SIZES[arg.size]

    config = run_config(every="1 epochs", keep=3)
    config.batch_size = 32
    config.total = "30 epochs"
    config.model = dict(
        name="taglm",
        vocab_size=words,
        labels=known_tags(kinds, "BIOES"),
        width=width,
        embed_width=50,
        depth=2,
        features=0,
        cell=cell,
        chars=chars,
        char_dim=25,
        char_width=char_width,
        max_chars=50,
        scheme="BIOES",
        constrained="never",
        dropout=0.25,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(name="tagging")
    config.source = dict(
        name="tagged",
        corpus="",
        split="train",
        train="eng.train",
        heldout="eng.testa",
        test="eng.testb",
        length=128,
        widths=4,
        together=1,
        read=read,
        scheme="BIOES",
        word=0,
        tag=tag,
        vocab="",
        min_count=1,
        lowercase=True,
        zero_digits=True,
        max_chars=50,
        vectors_of=(),
    )
    config.optim = dict(
        name="adamw",
        lr=1e-3,
        schedule=dict(name="constant"),
        clip=5.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
    )
    config.evals = dict(
        heldout=dict(name="objective", split="heldout", batches=0, batch_size=32, seed=0),
        spans=dict(name="entities", split="heldout", batch_size=32, by_kind=True),
    )
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on generated tagged text."""
    from ctxjax.data.generated import generated_tags
    from ctxjax.data.sources.tagged import Source

    folder = generated_tags()
    source = Source(folder, tag=config.source.tag, read=config.source.read)
    config.source.update(corpus=folder, length=64, widths=2, max_chars=16)
    config.model.update(vocab_size=source.vocab_size, labels=source.labels, width=16, embed_width=12, max_chars=16)
    config.model.update(char_dim=6, char_width=8, dropout=0.0)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 1e-2
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
    config.evals.spans.batch_size = 16

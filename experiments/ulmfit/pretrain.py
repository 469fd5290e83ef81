"""AWD-LSTM, and with it the first stage of ULMFiT: predicting the next word.

Paper: Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models" (ptb, wt2); Howard and Ruder 2018,
"Universal Language Model Fine-tuning for Text Classification" (ulmfit). Code: salesforce/awd-lstm-lm; fastai 0.7.
Expected: perplexities of 61.2 validation and 58.8 test on the Penn Treebank, 68.7 and 65.6 on WikiText-2, before the
fine-tuning and the pointer of that paper. Parameters 24,221,600 and 33,556,078, and here those of one word more.
Hardware and time: on a Quadro GP100 65 seconds an epoch of PTB and 105 of WikiText-2 (the authors' README), so 9 and 22
hours; ULMFiT's authors give neither.

The Penn Treebank is one sentence a line, tokenised, with `<unk>`; its parts are 929,589, 73,760 and 82,430 tokens with
the end marks, and a corpus prepared so has as many:

    python -m ctxjax.prepare --input ptb.train.txt --heldout_input ptb.valid.txt --output corpora/ptb \
        --format sentences --tokenizer words --word_split whitespace
    python -m ctxjax.train --config experiments/ulmfit/pretrain.py:size=ptb --workdir runs/ptb \
        --config.source.corpus=corpora/ptb

Its vocabulary is the published 10,000 and `<S>`, which running text never has. For the test figure, prepare another
with `--heldout_input ptb.test.txt --vocab corpora/ptb/tokenizer` and name it to python -m ctxjax.evaluate.

Arguments:
    size=ptb|wt2    400 and 1150 wide, 3 layers, as published: SGD at 30, averaged when validation stops to improve.
    size=ulmfit     the same model for WikiText-103 and 30,000 words: Adam in one cycle, little dropout, 64 lanes.
    size=small      128 and 256 wide, 2 layers, Adam, for some minutes on two cores.
    direction=backward  read from the end of the text to its beginning; the published ULMFiT trains one of each.
    smoke           2 small layers, 20 steps on generated text, in seconds.
The corpus is $CTXJAX_DATA/prepared/words unless --config.source.corpus names another. For `finetune.py`'s second run,
--config.init_from.path=runs/ptb --config.optim.window=0. A fixed length, --config.source.variable=False, is faster.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

# words, embedding, cells, layers, lanes, length; dropout of output, input, between layers, word types, weights
SIZES = {
    "small": (10_001, 128, 256, 2, 20, 35, (0.1, 0.1, 0.1, 0.02, 0.1)),
    "ptb": (10_001, 400, 1150, 3, 20, 70, (0.4, 0.4, 0.25, 0.1, 0.5)),
    "wt2": (33_279, 400, 1150, 3, 80, 70, (0.4, 0.65, 0.2, 0.1, 0.5)),
    "ulmfit": (30_000, 400, 1150, 3, 64, 70, (0.01, 0.025, 0.015, 0.002, 0.02)),
}
EPOCHS = {"small": 4, "ptb": 500, "wt2": 750, "ulmfit": 10}
DIRECTIONS = ("forward", "backward")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    from ctxjax.models.awd_lstm import published_splits

    arg = parse_arg(arg, size="ptb", direction="forward", smoke=False)
    for name, known in (("size", tuple(SIZES)), ("direction", DIRECTIONS)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    words, embed, width, depth, lanes, length, dropouts = SIZES[arg.size]
    published, splits = arg.size in ("ptb", "wt2"), published_splits(words)

    config = run_config(every="1 epochs")
    config.batch_size = lanes
    config.total = f"{EPOCHS[arg.size]} epochs"
    config.model = dict(
        name="awd_lstm",
        vocab_size=words,
        width=width,
        embed_width=embed,
        depth=depth,
        dropout=dropouts[0],
        input_dropout=dropouts[1],
        hidden_dropout=dropouts[2],
        embed_dropout=dropouts[3],
        weight_drop=dropouts[4],
        tied=True,
        splits=splits,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(
        name="causal_lm",
        ar=2.0,
        tar=1.0,
        ar_of="dropped" if published else "raw",
        rate_length=length if published else 0,
        split=bool(splits),
    )
    config.source = dict(
        name="running",
        corpus=prepared("words"),
        split="train",
        length=length,
        variable=arg.size != "small",
        longest_first=arg.size == "ulmfit",
        direction=arg.direction,
        verify=False,
    )
    config.optim = dict(
        name="ntasgd",
        lr=30.0,
        schedule=dict(name="constant"),
        clip=0.25,
        weight_decay=1.2e-6,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        metric="heldout/lm",
        window=5,
    )
    if not published:
        config.optim = dict(
            name="adamw",
            lr=5e-3,
            schedule=dict(name="one_cycle", div=10.0, anneal="10 percent"),
            clip=0.12,
            weight_decay=1e-7,
            decay_exclude="",
            lr_multipliers=((".*", 1.0),),
            frozen="",
            b1=0.8,
            b2=0.99,
        )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=0, batch_size=10, seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two small layers and 20 steps on a generated corpus."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("words")), width=48, embed_width=32, depth=2)
    config.model.update(dropout=0.0, input_dropout=0.0, hidden_dropout=0.0, embed_dropout=0.0, weight_drop=0.0)
    config.source.update(corpus=generated_corpus("words"), length=8)
    config.objective.rate_length = min(config.objective.rate_length, 8)
    config.update(batch_size=8, total="20 steps")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.optim.lr = 10.0 if config.optim.name == "ntasgd" else 2e-2
    config.evals.heldout.update(batches=2, batch_size=8)

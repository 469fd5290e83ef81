"""ULMFiT's second stage: a language model goes on learning on the text of the task.

Paper: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2. Code: fastai
0.7, imdb_scripts/finetune_lm.py.
Expected: no perplexity was published. What it is for is the third stage: beginning with a pretrained model takes the
validation errors of the whole from 5.63 to 5.00 (IMDb), 10.67 to 5.69 (TREC-6) and 5.52 to 5.38 (AG), table 4.
Hardware and time: neither is published; `size=small` takes minutes on two cores.

The vocabulary is the task's; words that the first stage lacks start at the mean of its rows, in the table and the bias.

    python experiments/ulmfit/texts.py --task topics.trec6 --input $CTXJAX_DATA/tasks/trec6 --output texts/trec6
    python -m ctxjax.prepare --input texts/trec6/train.jsonl --heldout_input texts/trec6/heldout.jsonl \
        --output corpora/trec6 --tokenizer words --vocab_size 30000 --marked script
    python -m ctxjax.train --config experiments/ulmfit/finetune_lm.py --workdir runs/trec6-lm \
        --config.source.corpus=corpora/trec6 --config.init_from.path=runs/wt103 --config.model.vocab_size=N

N is the number of words that prepare prints. The first stage is pretrain.py:size=ulmfit on text that is marked alike.

Arguments:
    size=published  400 and 1150 wide, 3 layers, 64 lanes, 25 epochs.
    size=small      128 and 256 wide, 2 layers, 16 lanes, 8 epochs: what pretrain.py:size=small made.
    direction=backward  goes on with the model that was pretrained so.
    dropmult=1.0    all dropouts are multiplied by it.
    smoke           2 small layers, 20 steps on generated text, in seconds.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config

# embedding, cells, layers, lanes, epochs
SIZES = {"published": (400, 1150, 3, 64, 25), "small": (128, 256, 2, 16, 8)}
DIRECTIONS = ("forward", "backward")
DROPOUTS = {"dropout": 0.1, "input_dropout": 0.25, "hidden_dropout": 0.15, "embed_dropout": 0.02, "weight_drop": 0.2}
RATES = (1.0, 1 / 3, 1 / 6)  # of the layers, the last first


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", direction="forward", dropmult=1.0, smoke=False)
    for name, known in (("size", tuple(SIZES)), ("direction", DIRECTIONS)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    embed, width, depth, lanes, epochs = SIZES[arg.size]

    config = run_config(every="1 epochs")
    config.batch_size = lanes
    config.total = f"{epochs} epochs"
    config.model = dict(
        name="awd_lstm",
        vocab_size=30_000,
        width=width,
        embed_width=embed,
        depth=depth,
        **{name: arg.dropmult * rate for name, rate in DROPOUTS.items()},
        tied=True,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(name="causal_lm", ar=2.0, tar=1.0, ar_of="raw")
    config.source = dict(
        name="running",
        corpus="",
        split="train",
        length=70,
        variable=True,
        longest_first=True,
        direction=arg.direction,
        verify=False,
    )
    config.optim = dict(
        name="adamw",
        lr=4e-3,
        schedule=dict(name="slanted_triangular", ratio=32.0, cut=(0.1,)),
        clip=0.3,
        weight_decay=1e-7,
        decay_exclude="",
        lr_multipliers=(*((f"^layer_{depth - 1 - place}/", RATES[place]) for place in range(depth)), (".*", 0.5)),
        frozen="",
        b1=0.8,
        b2=0.99,
    )
    config.init_from.fresh_rows = "mean"
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=0, batch_size=10, seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two small layers and 20 steps on a generated corpus."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("words")), width=48, embed_width=32, depth=2)
    config.model.update(dict.fromkeys(DROPOUTS, 0.0))
    config.source.update(corpus=generated_corpus("words"), length=8)
    config.update(batch_size=8, total="20 steps", log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.optim.update(lr=2e-2, lr_multipliers=(("^layer_1/", 1.0), ("^layer_0/", 1 / 3), (".*", 0.5)))
    config.evals.heldout.update(batches=2, batch_size=8)

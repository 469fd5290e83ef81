"""GPT: predicting the next piece of books.

Paper: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training".
Expected: a perplexity of 18.4 a piece on BooksCorpus (the paper, section 4.1, from memory). Parameters: 116,534,784.
Hardware and time: a month on eight GPUs (the authors' announcement).

The paper gives 64 rows of 512 pieces, 100 epochs, 40,000 merges, a peak rate of 2.5e-4 after 2,000 updates and a cosine
down to 0; the released fine-tuning code gives Adam's constants, the decay of 0.01 on tensors of rank over 1, and the
clip. BooksCorpus is no longer handed out; one book a file is what the rows want:

    python -m ctxjax.prepare --input BOOKS... --output corpora/bpe --tokenizer bpe
    python -m ctxjax.train --config experiments/gpt/pretrain.py:size=published --workdir runs/gpt \
        --config.source.corpus=corpora/bpe

Arguments:
    size=published|small  12x768 (depth x width) as released; 6x512 for 100,000 steps.
    size=mini   4x256 with rows of 256: 32 rows, 20,000 steps, for text at hand and a machine at hand.
    isolate=True  documents of a row do not see one another; in the published model they do.
    smoke       2 narrow layers, 20 steps on generated text, in seconds.
`--vocab FOLDER` of prepare takes the published encoder_bpe_40000.json and vocab_40000.bpe. The corpus is
$CTXJAX_DATA/prepared/bpe unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, placeholder, prepared, run_config

# depth, width, heads, pieces a row, rows, learning rate, length of the run, warm-up
SIZES = {
    "mini": (4, 256, 4, 256, 32, 1e-3, "20000 steps", 1_000),
    "small": (6, 512, 8, 512, 64, 5e-4, "100000 steps", 2_000),
    "published": (12, 768, 12, 512, 64, 2.5e-4, "100 epochs", 2_000),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", isolate=False, smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    depth, width, heads, length, rows, lr, total, warmup = SIZES[arg.size]

    config = run_config(every="1000 steps", keep=3)
    config.batch_size = rows
    config.total = total
    config.vocab_multiple = 128
    config.model = dict(
        name="gpt",
        vocab_size=40478,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_dim=4 * width,
        max_len=length,
        dropout=0.1,
        attention_dropout=0.1,
        table_dropout=0.1,
        joint_softmax=True,
        dtype="float32",
        param_dtype="float32",
        remat="none",
        scan="deep",
        attention_implementation=placeholder(str),
    )
    config.objective = dict(name="causal_lm")
    config.source = dict(
        name="blocks",
        corpus=prepared("bpe"),
        split="train",
        length=length,
        verify=False,
    )
    if arg.isolate:
        config.source.isolate = True
    config.optim = dict(
        name="adam_gpt",
        lr=lr,
        schedule=dict(name="cosine", warmup=f"{warmup} steps", from_start=True),
        clip=1.0,
        weight_decay=0.01,
        decay_exclude=r"(^|[/_])norm/|(^|/)bias$",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        b1=0.9,
        b2=0.999,
        eps=1e-8,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=50, batch_size=min(rows, 64), seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on a generated corpus, at a constant rate."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("bpe")), width=32, depth=2, num_heads=2, mlp_dim=64)
    config.model.update(max_len=32, dropout=0.0, attention_dropout=0.0, table_dropout=0.0)
    config.source.update(corpus=generated_corpus("bpe"), length=32)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 3e-3
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)

"""ELMo: a bidirectional language model over character-built words.

Paper: Peters et al. 2018, "Deep contextualized word representations". Code: allenai/bilm-tf.
Expected: held-out perplexity of 39.4 to 39.7 on the 1 Billion Word Benchmark, mean of both directions, full softmax
(bilm-tf issues 26 and 113). Parameters without the softmax: published 93.6 M, small 13.6 M.
Hardware and time: 10 epochs (768,648,884 words each) took about two weeks on three GTX 1080.

    python -m ctxjax.prepare --input TEXT... --output corpora/words --tokenizer words --vocab_size 793471
    python -m ctxjax.train --config experiments/elmo/pretrain.py:size=published --workdir runs/elmo \
        --config.source.corpus=corpora/words

Arguments:
    size=published  2 layers of 4096 cells projected to 512 each way, characters, 8,192 sampled negatives, Adagrad at
        0.2 with an accumulator that starts at 1, loss times 20, clip at 10, 3 x 128 lanes of 20 words.
    size=small      AllenNLP's small model (1024 cells, 128 projected, one highway), with a vocabulary of 50,000 and 32
        lanes, for text at hand and a machine at hand; the rest as published.
    size=demo       256 cells, 128 projected, few character filters, a vocabulary of 10,000 with the full softmax, Adam,
        for some minutes on 0.4 million words.
    smoke           2 small layers, 20 steps on generated text, in seconds.
The corpus is $CTXJAX_DATA/prepared/words unless --config.source.corpus names another. On a TPU slice of 256 chips,
--config.mesh.fsdp=8 --config.mesh.tensor=2 splits the directions over tensor and leaves 3 lanes a row shard.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
FEW = ((1, 16), (2, 16), (3, 32), (4, 64))
# vocabulary, cells, projection, filters, highways, negatives, lanes
SIZES = {
    "demo": (10_000, 256, 128, FEW, 1, 0, 32),
    "small": (50_000, 1024, 128, FILTERS, 1, 8192, 32),
    "published": (793_471, 4096, 512, FILTERS, 2, 8192, 3 * 128),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    vocab_size, width, projection, filters, highways, samples, lanes = SIZES[arg.size]

    config = run_config(every="1250 steps")
    config.batch_size = lanes
    config.total = "10 epochs"
    config.vocab_multiple = 128 if arg.size == "published" else 1
    config.model = dict(
        name="bilm",
        vocab_size=vocab_size,
        width=width,
        projection=projection,
        depth=2,
        token="chars",
        char_dim=16,
        num_chars=261,
        max_chars=50,
        filters=filters,
        highways=highways,
        char_activation="relu",
        cell_clip=3.0,
        projection_clip=3.0,
        residual=True,
        dropout=0.1,
        groups=0,
        each_distinct=True,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(name="bilm", samples=samples, scale=20.0)
    config.source = dict(
        name="streams",
        corpus=prepared("words"),
        split="train",
        length=20,
        directions="both",
        characters=True,
        max_chars=50,
        verify=False,
    )
    config.optim = dict(
        name="adagrad",
        lr=0.2,
        schedule=dict(name="constant"),
        clip=10.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        initial=1.0,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=50, batch_size=min(lanes, 256), seed=0))

    if arg.size == "demo":
        config.total = "2000 steps"
        config.objective.scale = 1.0
        config.save_every = "10 percent"
        config.eval_every = "10 percent"
        config.optim = dict(
            name="adamw",
            lr=3e-3,
            schedule=dict(name="warmup_linear", warmup="5 percent"),
            clip=1.0,
            weight_decay=0.0,
            decay_exclude="",
            lr_multipliers=((".*", 1.0),),
            frozen="",
        )
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two small layers and 20 steps on a generated corpus."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("words")), width=32, projection=16, filters=((1, 8), (3, 8)))
    config.model.update(highways=1, dropout=0.0)
    config.objective.samples = min(config.objective.samples, 64)
    config.source.update(corpus=generated_corpus("words"), length=8)
    config.update(batch_size=16, total="20 steps")
    if config.optim.name == "adamw":
        config.optim.lr = 1e-2
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)

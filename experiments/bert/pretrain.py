"""BERT: masked language modelling and next-sentence prediction.

Paper: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
Expected: held-out masked-LM loss of BERT-base about 1.4 nats (its author, google-research/bert issue 90). Parameters
with both heads: base 110,106,428, large 336,226,108 (vocabulary of 30,522).
Hardware and time: the paper trained base on 16 and large on 64 TPU chips, four days each.

The published run is two phases of one schedule: 900,000 steps of 256 rows of 128 pieces, then 100,000 of 512 pieces
(learning rate 1e-4, warm-up of 10,000 steps, linear decay from step 0 over all of them; Adam without bias correction):

    python -m ctxjax.prepare --input TEXT... --output corpora/pieces --tokenizer wordpiece --vocab_size 30522
    python -m ctxjax.train --config experiments/bert/pretrain.py:size=base --workdir runs/bert-base-phase1 \
        --config.source.corpus=corpora/pieces
    python -m ctxjax.train --config experiments/bert/pretrain.py:size=base,phase=2 --workdir runs/bert-base-phase2 \
        --config.source.corpus=corpora/pieces --config.init_from.path=runs/bert-base-phase1

Arguments:
    size=tiny|mini|small|base|large  google-research's sizes: 2x128, 4x256, 4x512, 12x768, 24x1024 (depth x width).
        base and large default to the published run. tiny, mini and small default to a run for text at hand and a
        machine at hand: 32 rows, learning rate 5e-4, 20,000 / 40,000 / 100,000 steps in two phases as above.
    size=demo      tiny with a vocabulary of 8,000 and no dropout, for some minutes on 0.4 million words.
    recipe=lamb    NVIDIA's LAMB run, published for large: 7,038 steps of 65,536 rows of 128 at 6e-3, then 1,563 steps
        of 32,768 rows of 512 at 4e-3, each with its own warm-up and square-root decay, bf16. The second phase here
        starts with fresh moments; the original kept them and reset the step count. A device holds
        batch_size / accum_steps / devices rows at a time: accum_steps=16 and 32 are meant for 256 devices.
    phase=2        the phase of 512 pieces.
    packed=True    several examples to a row, which do not see one another, and next to no padding: the same examples
        and masks, but a batch of so many rows holds more of them, a third more at 512 of books and articles
        (experiments/LOG.md, "packing").
    smoke          2 layers, 20 steps on generated text, in seconds.
The corpus is $CTXJAX_DATA/prepared/pieces unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, placeholder, prepared, run_config

# depth, width, heads
SIZES = {"demo": (2, 128, 2), "tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8)}
SIZES |= {"base": (12, 768, 12), "large": (24, 1024, 16)}
# rows, learning rate, steps of both phases, warm-up
RUNS = {
    "demo": (32, 1e-3, 2_000, 200),
    "tiny": (32, 5e-4, 20_000, 1_000),
    "mini": (32, 5e-4, 40_000, 2_000),
    "small": (32, 5e-4, 100_000, 5_000),
    "base": (256, 1e-4, 1_000_000, 10_000),
    "large": (256, 1e-4, 1_000_000, 10_000),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="base", recipe="published", phase=1, packed=False, smoke=False)
    for name, choices in (("size", SIZES), ("recipe", ("published", "lamb")), ("phase", (1, 2))):
        if arg[name] not in choices:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(map(str, choices))}")
    depth, width, heads = SIZES[arg.size]
    length = {1: 128, 2: 512}[arg.phase]

    config = run_config(every="1000 steps", keep=3)
    config.model = dict(
        name="bert",
        vocab_size=8000 if arg.size == "demo" else 30522,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_dim=4 * width,
        max_len=512,
        type_vocab_size=2,
        dropout=0.0 if arg.size == "demo" else 0.1,
        attention_dropout=0.0 if arg.size == "demo" else 0.1,
        dtype="float32",
        param_dtype="float32",
        remat="none",
        scan="deep",
        next_sentence=True,
        attention_implementation=placeholder(str),
    )
    config.objective = dict(name="masked_lm", next_sentence=True)
    config.source = dict(
        name="sentence_pairs",
        corpus=prepared("pieces"),
        split="train",
        length=length,
        max_predictions={1: 20, 2: 80 if arg.recipe == "lamb" else 77}[arg.phase],
        mask_prob=0.15,
        short_seq_prob=0.1,
        next_sentence=True,
        whole_word=False,
        passes=10,
        static_masks=0,
        pair_seed=12345,
        verify=False,
    )
    if arg.packed:
        config.source.update(name="packed_pairs", max_examples=8, window=16384)

    rows, lr, steps, warmup = RUNS[arg.size]
    config.batch_size = rows
    config.total = f"{steps * 9 // 10 if arg.phase == 1 else steps // 10} steps"
    config.vocab_multiple = 128 if arg.size in ("base", "large") else 1
    config.optim = dict(
        name="adam_bert",
        lr=lr,
        schedule=dict(name="warmup_linear", warmup=f"{warmup} steps", total=f"{steps} steps"),
        clip=1.0,
        weight_decay=0.01,
        decay_exclude=r"(^|[/_])norm/|(^|/)bias$",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        b1=0.9,
        b2=0.999,
        eps=1e-6,
    )
    # The demo's length is given by its minutes: its schedule follows config.total.
    if arg.size == "demo":
        config.total = f"{steps} steps"
        config.optim.schedule = dict(name="warmup_linear", warmup="10 percent")
    if arg.recipe == "lamb":
        _lamb(config, arg.phase)

    if arg.size == "demo":
        config.save_every = config.eval_every = "10 percent"
    config.evals = dict(
        heldout=dict(name="objective", split="heldout", batches=50, batch_size=min(config.batch_size, 256), seed=0)
    )
    if arg.phase == 2:
        config.init_from.path = f"runs/bert-{arg.size}-phase1"
        config.init_from.optimizer = arg.recipe == "published"  # and with it the place in the schedule
    if arg.smoke:
        _smoke(config)
    return config


def _lamb(config: ml_collections.ConfigDict, phase: int) -> None:
    """NVIDIA DeepLearningExamples, PyTorch BERT: README (scripts/run_pretraining.sh) and schedulers.py."""
    steps, lr, warmup = {1: (7038, 6e-3, "28.43 percent"), 2: (1563, 4e-3, "12.8 percent")}[phase]
    config.batch_size = {1: 65_536, 2: 32_768}[phase]
    config.accum_steps = {1: 16, 2: 32}[phase]
    config.total = f"{steps} steps"
    config.model.dtype = "bfloat16"
    config.optim.name = "lamb"
    config.optim.lr = lr
    config.optim.schedule = dict(name="warmup_polynomial", warmup=warmup, power=0.5, offset=1)
    config.optim.adapt_excluded = False
    config.optim.pre_normalize = False


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on a generated corpus, from fresh parameters at a constant rate."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("wordpiece")), width=32, depth=2, num_heads=2, mlp_dim=64)
    config.model.update(max_len=64, dropout=0.0, attention_dropout=0.0)
    config.source.update(corpus=generated_corpus("wordpiece"), length=32, max_predictions=5, passes=2)
    config.update(batch_size=16, accum_steps=1, total="20 steps")
    config.optim.lr = 2e-2 if config.optim.name == "lamb" else 3e-3  # LAMB's steps are a share of each parameter's norm
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
    config.init_from.update(path=None, optimizer=False)

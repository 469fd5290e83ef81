"""SQuAD 1.1 and 2.0: answers as spans of a paragraph, by a pretrained encoder and two scores of every piece.

Paper: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", sections
4.2 and 4.3; the recipe is that of google-research/bert's README.
Expected: exact match and F1 on the development set of 1.1 of 81.25 / 88.41 for BERT-base and 84.39 / 90.87 for
BERT-large (README), of 2.0 of 78.7 / 81.9 for BERT-large (paper, table 3).
Hardware and time: around 30 minutes on one Cloud TPU for 1.1 (paper, section 3.2); two epochs are 14,599 steps of
BERT-base, and 7,299 of BERT-large.

    python -m ctxjax.train --config experiments/squad/finetune.py:size=base --workdir runs/squad \
        --config.source.corpus=DIR --config.init_from.path=runs/bert

DIR holds train-v1.1.json and dev-v1.1.json (or -v2.0), or is tfds:squad/v1.1 (squad/v2.0), once TFDS has prepared it.
The encoder's fields and the tokenizer are those of the run that init_from.path names; published weights become one by
python -m ctxjax.convert. The official files of predictions:

    python -m ctxjax.predict --workdir runs/squad --split heldout --output FOLDER

writes predictions.json, nbest_predictions.json and (2.0) null_odds.json. Where one has other files of the same layout,
name them in source.train, and a share of their articles to hold out in source.held_out.

Arguments:
    size=base|large  batches of 12, and BERT-base's sizes where no checkpoint says others; of 24, and BERT-large's.
    version=1.1|2.0  2.0 has questions without an answer, and reports the best threshold for telling that.
    smoke            20 steps on generated questions, in seconds.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config
from ctxjax.data.tasks.squad import VERSIONS

LARGE = {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096}
SIZES = {"base": (12, {}), "large": (24, LARGE)}  # rows of a batch, and what is not BERT-base's


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="base", version="1.1", smoke=False)
    for name, known in (("size", SIZES), ("version", VERSIONS)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    rows, sizes = SIZES[arg.size]

    config = run_config("1 epochs", keep=3)
    config.batch_size = rows
    config.total = "2 epochs"
    config.model = dict(
        name="downstream",
        encoder=dict(name="bert", vocab_size=30_522, dropout=0.1, attention_dropout=0.1, **sizes),
        task="span",
        layers=(),
        mix=False,
        mix_norm=False,
        dropout=0.0,
    )
    config.objective = dict(name="spans", over_padding=True)
    config.source = dict(
        name="questions",
        corpus="",
        split="train",
        tokenizer="",
        framing="",
        version=arg.version,
        train=(f"train-v{arg.version}.json",),
        heldout=(f"dev-v{arg.version}.json",),
        test=(),
        held_out=0.0,
        length=384,
        stride=128,
        max_query=64,
        count_windows=False,
        widths=1,
        together=1,
    )
    config.optim = dict(
        name="adam_bert",
        lr=3e-5,
        schedule=dict(name="warmup_linear", warmup="10 percent"),
        clip=1.0,
        weight_decay=0.01,
        decay_exclude=r"(^|[/_])norm/|(^|/)bias$",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        b1=0.9,
        b2=0.999,
        eps=1e-6,
    )
    config.evals = dict(
        heldout=dict(name="objective", split="heldout", batches=100, batch_size=rows, seed=0),
        squad=dict(
            name="squad",
            split="heldout",
            batch_size=rows,
            n_best=20,
            max_answer=30,
            threshold=0.0,
            projection="",
            language="en",
            folder="",
        ),
    )
    config.init_from.pattern = "^(?!task/)"  # another task's head is of no use
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on generated questions, from fresh parameters at a constant rate."""
    from ctxjax.data.generated import make_tokenizer
    from ctxjax.data.generated_questions import generated_questions

    folder, pieces = generated_questions(), len(make_tokenizer("wordpiece"))
    config.source.update(corpus=folder, tokenizer=f"{folder}/tokenizer", length=48, stride=12, max_query=12)
    sizes = dict(width=32, depth=2, num_heads=2, mlp_dim=64, max_len=48, dropout=0.0, attention_dropout=0.0)
    config.model.encoder = dict(name="bert", vocab_size=pieces, **sizes)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 3e-3
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
    config.evals.squad.batch_size = 32

"""Semantic roles and coreference of CoNLL-2012 by fine-tuning an encoder.

Paper: Shi and Lin 2019, "Simple BERT Models for Relation Extraction and Semantic Role Labeling" (roles); Joshi et al.
2019, "BERT for Coreference Resolution: Baselines and Analysis", the independent variant (coreference).
Expected: F1 on the test set of about 86.5 for roles (AllenNLP's SrlBert with BERT-base, by its model card), and of 73.9
for coreference with BERT-base (paper), whose second-order spans and features of speakers and genres are not here.
Hardware and time: not given in the papers; a pass over the 2,802 training documents is as many steps for coreference.
Sizes and rates of coreference are those of the released configuration for BERT-base; those of roles are ours.

    python -m ctxjax.train --config experiments/conll2012/finetune.py:task=roles --workdir runs/roles \
        --config.source.corpus=DIR --config.init_from.path=runs/bert

DIR has the folders train, development and test with files *_conll, the columns of CoNLL-2012 with their words
(source.train, heldout and test name others). Encoder and tokenizer are those of the run that init_from.path names.

Arguments:
    task=roles|coreference   the arguments of every predicate, or the clusters of mentions of every document.
    size=published           the only one: the encoder says the rest.
    smoke                    20 steps of a tiny fresh encoder on generated documents, in seconds.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config

TASKS, SIZES = ("roles", "coreference"), ("published",)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, task="roles", size="published", smoke=False)
    for name, known in (("task", TASKS), ("size", SIZES)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    roles = arg.task == "roles"

    config = run_config("1 epochs", keep=2)
    config.batch_size = 32 if roles else 1
    config.total = "5 epochs" if roles else "20 epochs"
    config.model = dict(
        name="downstream",
        encoder=dict(name="bert", vocab_size=28_996, dropout=0.1, attention_dropout=0.1),
        task="tag" if roles else "coreference",
        labels=(),
        dropout=0.1 if roles else 0.3,
    )
    config.source = dict(name=arg.task, corpus="", split="train", train="train", heldout="development", test="test")
    if roles:
        config.model.options = dict(chain=False)
        config.objective = dict(name="tagging", crf=False, mix_l2=0.0)
        config.source.update(tokenizer="", length=256, widths=4, together=1)
    else:
        config.model.options = dict(width=3000, depth=1, feature_dim=20, max_width=30, ratio=0.4, max_antecedents=50)
        config.objective = dict(name="coreference")
        config.source.update(tokenizer="", framing="", length=128, segments=11, words=1024, mentions=256)
    config.optim = dict(
        name="adam_bert",
        lr=5e-5 if roles else 1e-5,
        schedule=dict(name="warmup_linear", warmup="10 percent"),
        clip=1.0,
        weight_decay=0.01,
        decay_exclude=r"(^|[/_])norm/|(^|/)bias$",
        lr_multipliers=((".*", 1.0),) if roles else (("^task/", 20.0), (".*", 1.0)),  # Joshi et al.: 2e-4 for the head
        frozen="",
        b1=0.9,
        b2=0.999,
        eps=1e-6,
    )
    config.evals = dict(
        heldout=dict(name="objective", split="heldout", batches=0, batch_size=config.batch_size, seed=0),
        scores=dict(name=arg.task, split="heldout", batch_size=config.batch_size),
    )
    config.init_from.pattern = "^(?!task/)"  # another task's head is of no use
    if arg.smoke:
        _smoke(config, roles)
    return config


def _smoke(config: ml_collections.ConfigDict, roles: bool) -> None:
    """Two narrow layers and 20 steps on generated documents, from fresh parameters at a constant rate."""
    from ctxjax.data.generated import make_tokenizer
    from ctxjax.data.generated_documents import generated_documents

    folder = generated_documents()
    config.source.update(corpus=folder, tokenizer=f"{folder}/tokenizer", length=48 if roles else 32)
    sizes = dict(width=32, depth=2, num_heads=2, mlp_dim=64, max_len=64, dropout=0.0, attention_dropout=0.0)
    config.model.encoder = dict(name="bert", vocab_size=len(make_tokenizer("wordpiece")), **sizes)
    config.model.dropout = 0.0
    if roles:
        config.source.widths = 2
    else:
        config.source.update(segments=4, words=64, mentions=40)
        config.model.options.update(width=32, feature_dim=4, max_width=3, max_antecedents=10)
    config.update(batch_size=16 if roles else 8, total="20 steps")
    config.optim.update(lr=3e-3, lr_multipliers=((".*", 1.0),))
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=config.batch_size)
    config.evals.scores.batch_size = config.batch_size

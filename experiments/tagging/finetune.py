"""Names and parts of speech by fine-tuning an encoder: BERT, with the document round every sentence.

Paper: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 5.3 and table 7.
Expected: F1 on CoNLL-2003 of BERT-base, cased: 96.4 on the development set and 92.4 on the test set; BERT-large 96.6
and 92.8. Without the document around a sentence, others report 90 to 91.7 on the test set.
Hardware and time: minutes on one TPU or GPU; a pass over CoNLL-2003 is 439 steps of 32 rows of 512.

    python -m ctxjax.train --config experiments/tagging/finetune.py --workdir runs/names \
        --config.init_from.path=runs/bert --config.source.corpus=DIR

DIR has eng.train, eng.testa and eng.testb. Encoder and tokenizer are those of the run (or of published weights once
converted: python -m ctxjax.convert DIR runs/bert --to ctxjax). For the test set: python -m ctxjax.evaluate --workdir
runs/names --only spans --config.evals.spans.split=test (words for parts of speech).

The released code has no tagger. Of the paper are: labels at first pieces, no CRF, as much of the document as there is
room for, dropout 0.1, and the grid of rates (5e-5, 3e-5, 2e-5), batches (16, 32) and passes (2 to 4), to be chosen from
on the development set. BIO and the linear schedule with a tenth of warm-up are assumed.

Arguments:
    task=conll2003|ud_english|msra   names; parts of speech of UD English EWT; names in Chinese, character by character
        (unzip dh_msra.zip). Published figures are of conll2003.
    size=small   rows of 128, at 1e-4, for small encoders on a processor (default size=published).
    smoke        20 steps of a tiny fresh encoder on generated text, in seconds.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config
from ctxjax.data.tasks.tagging import TASKS

SIZES = ("published", "small")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, task="conll2003", size="published", smoke=False)
    for name, known in (("task", tuple(TASKS)), ("size", SIZES)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    task, small = TASKS[arg.task], arg.size == "small"

    config = run_config("1 epochs", keep=2)
    config.batch_size = 32
    config.total = "4 epochs"
    config.model = dict(
        name="downstream",
        encoder=dict(name="bert", vocab_size=28_996),
        task="tag",
        labels=task.labels("BIO"),
        dropout=0.1,
        options=dict(chain=False),
    )
    config.objective = dict(name="tagging", crf=False, mix_l2=0.0)
    config.source = dict(
        name="tagged_pieces",
        corpus="",
        split="train",
        **task.fields("BIO"),
        tokenizer="",
        framing="",
        length=128 if small else 512,
        context=True,
        widths=4,
        together=1,
    )
    config.optim = dict(
        name="adam_bert",
        lr=1e-4 if small else 5e-5,
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
        heldout=dict(name="objective", split="heldout", batches=0, batch_size=32, seed=0),
        spans=dict(name="entities", split="heldout", batch_size=32, by_kind=True),
    )
    config.best = "highest spans/f1"
    if not task.read:
        del config.evals["spans"]
        config.evals.words = dict(name="word_accuracy", split="heldout", batch_size=32)
        config.best = "highest words/accuracy"
    config.init_from.pattern = "^(embed|layer_|pooler)"
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on generated tagged text, whose longest sentences are cut."""
    from ctxjax.data.generated import tagged_files
    from ctxjax.data.sources.tagged_pieces import Source, example

    made = example()
    config.source.update(corpus=str(made.corpus.folder), tokenizer=str(made.corpus.folder / "wordpiece"))
    config.source.update(length=48, widths=2)
    config.source.update(tagged_files(bool(config.source.read)))
    sizes = dict(width=32, depth=2, num_heads=2, mlp_dim=64, max_len=64, dropout=0.0, attention_dropout=0.0)
    config.model.encoder = dict(name="bert", vocab_size=made.vocab_size, **sizes)
    labels = Source(**{name: value for name, value in config.source.items() if name != "name"}).labels
    config.model.update(labels=labels, dropout=0.0)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 3e-3
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
    for name in set(config.evals) & {"spans", "words"}:
        config.evals[name].batch_size = 16

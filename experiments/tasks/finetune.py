r"""Tasks on whole texts from a pretrained encoder: GLUE, sentiment, topics, entailment, multiple choice.

Paper: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"; with
system=gpt Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"; with system=elmo Peters
et al. 2018, "Deep contextualized word representations".
Expected: on GLUE's test sets BERT-base (GPT) has MNLI 84.6/83.4 (82.1/81.4), QQP 71.2 (70.3), QNLI 90.5 (87.4), SST-2
93.5 (91.3), CoLA 52.1 (45.4), STS-B 85.8 (80.0), MRPC 88.9 (82.3), RTE 66.4 (56.0), 79.6 (75.1) on average; on SWAG's
development set BERT-base has 81.6.
Hardware and time: the paper's tasks take a few minutes to an hour on one Cloud TPU; a pass over RTE is 77 steps.

    python -m ctxjax.train --config experiments/tasks/finetune.py:task=glue.rte --workdir runs/rte \
        --config.source.corpus=glue_data/RTE --config.init_from.path=runs/bert
    python -m ctxjax.predict --workdir runs/rte --split test --output predictions
    python -m ctxjax.sweep --config experiments/tasks/finetune.py:task=glue.rte --workdir runs/grid \
        --config.init_from.path=runs/bert --config.best="highest heldout/accuracy"          # the paper's grid

The encoder's sizes and its tokenizer are those of the run that init_from.path names; published weights become one by
python -m ctxjax.convert FOLDER RUN --to ctxjax. source.corpus is the folder of the task's official files; with
CTXJAX_DATA it is found under $CTXJAX_DATA/tasks. --config.source.corpus=tfds:glue/rte reads what TFDS has prepared.
Figures are those of the split "heldout", and beside the official one stands what telling always the most frequent label
gives; a tenth of the training file is held out where there is no file for it (source.share). source.limit trains on so
many examples.
A batch is as wide as its longest row needs, of four widths at most (source.widths; 1 pads all to source.length);
source.together=16 lets rows of like length share a batch, which is faster and no longer the published order.

Arguments:
    task=NAME   glue.cola sst2 mrpc stsb qqp mnli qnli rte wnli (or quora); sentiment.sst5 imdb mr; topics.trec6 ag_news
        dbpedia yelp_polarity yelp_full; entailment.snli sick sick_relatedness; choices.swag codah copa dream; or
        own.labels pairs scores choices, in JSON lines of one's own (ctxjax/data/tasks/own.py; labels in model.labels).
    system=bert|gpt|elmo|word2vec|glove  the published recipe of fine-tuning BERT (batches of 32, three epochs, 5e-5 out
        of 5e-5, 3e-5 and 2e-5; 16, 2e-5 for choices) or GPT (the loss of the language model goes on, with 0.5; both
        orders of symmetrical pairs); or frozen vectors under a layer of 512: ELMo's with a learned mix of its layers,
        their mean over the text, or the mean of static ones. Pairs of the frozen are read apart and compared.
    size=base|large|small  BERT's sizes, where no checkpoint says them; small is the recipe for the small models of
        google-research/bert (four epochs, 1e-4 out of 3e-4, 1e-4, 5e-5 and 3e-5), of the size that the checkpoint has.
    smoke       two narrow layers and 20 steps on generated text, in seconds.
"""

import os
from collections.abc import Iterator
from typing import Any

import ml_collections

from ctxjax.config import ConfigError, grid, parse_arg, run_config
from ctxjax.data.tasks import Task, open_task
from ctxjax.data.tasks.glue import FOLDERS

LARGE = {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096}
SYSTEMS = ("bert", "gpt", "elmo", "word2vec", "glove")
STATIC = ("word2vec", "glove")
SHORT = {  # words of the static and the recurrent, pieces of the others: fewer than 128
    "sentiment.sst5": 64, "sentiment.mr": 64, "topics.trec6": 64,
}  # fmt: skip
LONG = {"sentiment.imdb": 512, "choices.dream": 512, "topics.yelp_polarity": 512, "topics.yelp_full": 512}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, task="glue.cola", system="bert", size="base", smoke=False)
    for name, choices in (("system", SYSTEMS), ("size", ("base", "large", "small"))):
        if arg[name] not in choices:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(choices)}")
    task = open_task(arg.task, "config argument task")
    if not isinstance(task, Task):
        raise ConfigError(f"config argument task={arg.task!r} is no task on whole texts")
    pair = task.parts == 2 and task.kind != "choose"

    config = run_config(every="1 epochs")
    config.batch_size = 32
    config.total = "3 epochs"
    config.model = dict(
        name="downstream",
        encoder=dict(name=arg.system),
        task=task.kind,
        labels=task.labels if task.kind == "classify" else (),
        pool="",
        layers=(),
        mix=False,
        mix_norm=False,
        compare=False,
        dropout=0.1,
        language_model=False,
        options=dict(width=0, shared_dropout=False),
    )
    config.objective = dict(name="classification", task=task.kind, language_model=0.0, mix_l2=0.0)
    config.source = dict(
        name="examples",
        corpus=_folder(arg.task),
        split="train",
        task=arg.task,
        tokenizer="",
        length=SHORT.get(arg.task) or LONG.get(arg.task) or 128,
        framing="",
        both_orders=False,
        apart=False,
        max_chars=0,
        limit=0,
        share=0.1,
        widths=4,
        together=1,
    )
    config.optim = dict(
        name="adam_bert",
        lr=5e-5,
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
    config.init_from.pattern = r"^(?!task/)"  # another task's head is of no use
    config.evals = dict(heldout=dict(name="task", split="heldout", batch_size=32, baseline=True))
    if arg.task == "glue.mnli":
        config.evals.mismatched = dict(name="task", split="heldout_mm", batch_size=32, baseline=False)
    if arg.system == "bert":
        _bert(config, arg.size)
    elif arg.system == "gpt":
        _gpt(config, task)
    else:
        _frozen(config, arg.system, pair)
    if arg.smoke:
        _smoke(config, arg.system)
    return config


def get_sweep() -> Iterator[dict[str, Any]]:
    """The grid that BERT's paper chooses from on the development set (appendix A.3)."""
    rates, passes = (5e-5, 3e-5, 2e-5), ("2 epochs", "3 epochs", "4 epochs")
    yield from grid(**{"batch_size": (16, 32), "optim.lr": rates, "total": passes})


def _folder(task: str) -> str:
    """Where the files of a task are in the data folder, if there is one."""
    root, (family, _, name) = os.environ.get("CTXJAX_DATA"), task.rpartition(".")
    if not root or family == "own":
        return ""
    inside = {"glue.quora": "qqp", "choices.codah": "codah/cv_split/fold_0", "entailment.sick_relatedness": "sick"}
    return os.path.join(root, "tasks", inside.get(task) or (f"glue/{FOLDERS[name]}" if family == "glue" else name))


def _bert(config: ml_collections.ConfigDict, size: str) -> None:
    """google-research/bert run_classifier.py, and its README for small models; its author on SWAG in issue 38."""
    dropouts = dict(dropout=0.1, attention_dropout=0.1)
    config.model.encoder = dict(name="bert", vocab_size=30_522, **dropouts, **(LARGE if size == "large" else {}))
    if config.model.task == "choose":
        config.update(batch_size=16)
        config.optim.lr = 2e-5
    if size == "small":
        config.total = "4 epochs"
        config.optim.lr = 1e-4


def _gpt(config: ml_collections.ConfigDict, task: Task) -> None:
    """openai/finetune-transformer-lm train.py; its two choices share the dropout of their vectors."""
    dropouts = dict(dropout=0.1, attention_dropout=0.1, table_dropout=0.1)
    config.model.update(encoder=dict(name="gpt", vocab_size=40_478 + 3, **dropouts), language_model=True)
    config.model.options.shared_dropout = task.kind == "choose"
    config.objective.language_model = 0.5
    config.source.update(framing="gpt", both_orders=task.symmetric, length=max(256, config.source.length))
    config.optim.update(name="adam_gpt", lr=6.25e-5, eps=1e-8)
    config.optim.schedule = dict(name="ramped_linear", warmup="0.2 percent")


def _frozen(config: ml_collections.ConfigDict, system: str, pair: bool) -> None:
    """Nothing but the head is trained, and where there are layers their mix."""
    static = system in STATIC
    sizes = {"word2vec": (100_003, 300), "glove": (400_003, 300)}
    if static:
        vocab_size, width = sizes[system]
        config.model.encoder = dict(name=system, vocab_size=vocab_size, width=width)
    else:
        config.model.encoder = dict(name="bilm", vocab_size=793_471, dropout=0.0)
        config.objective.mix_l2 = 1e-3
        config.source.max_chars = 50
        config.evals.mix = dict(name="mix")
    config.model.update(mix=not static, pool="mean", compare=pair, dropout=0.2)
    config.model.options.width = 512
    config.source.update(framing="bare" if static else "words", apart=pair)
    config.total = "10 epochs"
    config.optim.update(name="adamw", lr=1e-3, weight_decay=0.0, eps=1e-8, frozen=r"^(?!task/)")
    config.optim.schedule = dict(name="constant")


def _smoke(config: ml_collections.ConfigDict, system: str) -> None:
    """Narrow layers and 20 steps on generated examples, from fresh parameters at a constant rate."""
    from ctxjax.data.sources.examples import Source, stand_in

    config.source.update(stand_in(config.source))
    config.source.update(length=48, widths=2, max_chars=16 if system == "elmo" else 0)
    source = Source(**{name: value for name, value in config.source.items() if name != "name"})
    config.model.labels = source.labels
    sizes = dict(width=32, depth=2, num_heads=2, mlp_dim=64, max_len=48, dropout=0.0, attention_dropout=0.0)
    encoders = {
        "bert": dict(name="bert", **sizes),
        "gpt": dict(name="gpt", **sizes, table_dropout=0.0),
        "elmo": dict(
            name="bilm", width=24, projection=16, char_dim=5, max_chars=16, filters=((1, 8), (2, 8)), dropout=0.0
        ),
    }
    config.model.encoder = dict(vocab_size=source.vocab_size, **encoders.get(system, dict(name=system, width=32)))
    config.model.update(dropout=0.0)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 3e-3 if system in ("bert", "gpt") else 1e-2
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.batch_size = 32
    if "mismatched" in config.evals:
        del config.evals.mismatched

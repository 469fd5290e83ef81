"""ULMFiT's third stage: a classifier on the language model, thawed from its head down.

Paper: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3. Code: fastai
0.7, imdb_scripts/train_clas.py.
Expected: test errors of 4.6 on IMDb, 3.6 on TREC-6, 5.01 on AG, 0.80 on DBpedia, 2.16 and 29.98 on Yelp with two and
five labels, each the mean of a forward and a backward classifier.
Hardware and time: neither is published; TREC-6 with `size=small` takes minutes on two cores.

    python -m ctxjax.train --config experiments/ulmfit/classify.py:task=topics.trec6 --workdir runs/trec6 \
        --config.source.corpus=texts/trec6 --config.init_from.path=runs/trec6-lm
    python -m ctxjax.evaluate --workdir runs/trec6 --config.evals.heldout.split=test

Texts, corpus and the run that it begins with are those of finetune_lm.py; the tokenizer comes with that run. Both
directions together: `python experiments/ulmfit/ensemble.py runs/trec6 runs/trec6-backward --split test`.

Arguments:
    task: topics.trec6 (the default), ag_news, dbpedia, yelp_polarity or yelp_full, sentiment.imdb, sst5 or mr,
        glue.sst2 or cola: a task of ctxjax/data/tasks that labels single texts; it says the labels, and how long.
    size=published  400 and 1150 wide, 3 layers.
    size=small      128 and 256 wide, 2 layers, texts of 350 words at most.
    recipe=paper    every epoch thaws one layer more, beta1 0.7, cycles (32, 0.1), 64 texts, 50 epochs.
    recipe=script   the head, then the last layer too, then all; beta1 0.8, cycles of 8 and 1/3, 1/3, 1/8; 32 texts.
    recipe=scratch  nothing is frozen, one constant rate: what the script does without a language model to begin with.
    direction=backward  texts from their end; begins with the language model that reads so.
    smoke           2 small layers, 20 steps on generated texts, in seconds.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config
from ctxjax.data.tasks import Task, open_task

# embedding, cells, layers, longest text
SIZES = {"published": (400, 1150, 3, 2800), "small": (128, 256, 2, 350)}
DIRECTIONS = ("forward", "backward")
# words of a text; of other tasks LENGTH
LENGTHS = {"topics.trec6": 70, "topics.ag_news": 350, "topics.dbpedia": 700, "sentiment.imdb": 2800}
LENGTH = 1400
# texts, epochs, beta1, shares of the cycles' steps that climb, ratio
RECIPES = {
    "paper": (64, 50, 0.7, (0.1,), 32.0),
    "script": (32, 52, 0.8, (1 / 3, 1 / 3, 1 / 8), 8.0),
    "scratch": (32, 50, 0.8, (), 1.0),
}
STEP = 2.6  # between the rates of neighbouring layers


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, task="topics.trec6", size="published", recipe="paper", direction="forward", smoke=False)
    choices = {"size": SIZES, "recipe": RECIPES, "direction": DIRECTIONS}
    for name, known in choices.items():
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    embed, width, depth, longest = SIZES[arg.size]
    task = open_task(arg.task, "config argument task")
    if not isinstance(task, Task) or task.kind != "classify" or task.parts != 1:
        raise ConfigError(f"config argument task={arg.task!r} does not label single texts")
    texts, epochs, b1, climbs, ratio = RECIPES[arg.recipe]

    config = run_config(every="1 epochs")
    config.batch_size = texts
    config.total = f"{epochs} epochs"
    config.model = dict(
        name="ulmfit",
        encoder=dict(
            name="awd_lstm",
            vocab_size=30_000,
            width=width,
            embed_width=embed,
            depth=depth,
            dropout=0.0,
            input_dropout=0.4,
            hidden_dropout=0.3,
            embed_dropout=0.05,
            weight_drop=0.5,
            tied=True,
            dtype="float32",
            param_dtype="float32",
        ),
        labels=task.labels,
        bptt=70,
        windows=20,
        padding="front",
        hidden_width=50,
        dropout=0.4,
        hidden_dropout=0.1,
    )
    config.objective = dict(name="labels", scale=1.0, ar=2.0, tar=1.0)
    config.source = dict(
        name="long_texts",
        corpus="",
        split="train",
        tokenizer="",
        length=min(LENGTHS.get(arg.task, LENGTH), longest),
        direction=arg.direction,
        limit=0,
        together=50,
    )
    thaw = thawed(arg.recipe, depth)
    schedule = dict(name="constant")
    if thaw:
        starts = tuple(f"{epoch} epochs" for epoch in range(1, len(thaw) + 1))
        schedule = dict(name="slanted_triangular", ratio=ratio, cut=climbs, starts=starts)
    config.optim = dict(
        name="adamw",
        lr=1e-2,
        schedule=schedule,
        clip=25.0,
        weight_decay=1e-6,
        decay_exclude="",
        lr_multipliers=rates(depth),
        frozen="",
        thaw=thaw,
        b1=b1,
        b2=0.99,
    )
    more = tuple(name for name in task.metrics if name != "accuracy")
    config.evals = dict(heldout=dict(name="label_error", split="heldout", batch_size=64, metrics=more))
    if arg.smoke:
        _smoke(config, arg.recipe)
    return config


def rates(depth: int) -> tuple[tuple[str, float], ...]:
    """Each layer at the rate of the one above it over 2.6, the embedding last."""
    layers = [f"^layer_{index}/" for index in reversed(range(depth))]
    return tuple((pattern, STEP**-place) for place, pattern in enumerate(["^task/", *layers, ".*"]))


def thawed(recipe: str, depth: int) -> tuple[tuple[str, str], ...]:
    """What is frozen for how many epochs."""
    if recipe == "scratch":
        return ()
    top = (f"^layer_{depth - 1}/", "1 epochs")
    if recipe == "script":
        return (top, ("^(layer_|embed/)", "2 epochs"))
    below = [(f"^layer_{depth - place}/", f"{place} epochs") for place in range(2, depth + 1)]
    return (top, *below, ("^embed/", f"{depth + 1} epochs"))


def _smoke(config: ml_collections.ConfigDict, recipe: str) -> None:
    """Two small layers and 20 steps on generated texts, a step in place of an epoch."""
    from ctxjax.data.generated import make_tokenizer
    from ctxjax.data.sources import long_texts

    config.model.encoder.update(vocab_size=len(make_tokenizer("words")), width=48, embed_width=32, depth=2)
    config.model.encoder.update(dict.fromkeys(("input_dropout", "hidden_dropout", "embed_dropout", "weight_drop"), 0.0))
    config.model.update(labels=tuple(f"topic{number}" for number in range(4)), bptt=8, dropout=0.0, hidden_dropout=0.0)
    config.source.update(**long_texts.stand_in(config.source), length=24)
    config.update(batch_size=8, total="20 steps", log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.optim.update(thaw=tuple((pattern, when.replace("epoch", "step")) for pattern, when in thawed(recipe, 2)))
    config.optim.lr_multipliers = rates(2)
    if recipe != "scratch":
        config.optim.schedule.starts = tuple(when for _, when in config.optim.thaw)
    config.evals.heldout.batch_size = 8

"""Names and parts of speech by a BiLSTM on what a frozen model knows: ELMo, layers of BERT, static vectors.

Paper: Peters et al. 2018, "Deep contextualized word representations" (elmo; AllenNLP's ner_elmo.jsonnet); Devlin et al.
2019, "BERT", table 7 (bert). TagLM, which joins the vectors between its layers, is experiments/taglm/tag.py.
Expected: F1 on CoNLL-2003. elmo: 92.22 +- 0.10 on the test set (92.51 of AllenNLP's one run), and 90.15 without ELMo.
bert, BERT-base on the development set: embeddings 91.0, last 94.9, second_to_last 95.6, weighted 95.5, weighted_four
95.9, concat_four 96.1.
Hardware and time: not given in the papers; a pass over the 14,041 sentences of CoNLL-2003 is 220 steps of 64.

    python -m ctxjax.features --config experiments/tagging/features.py:kind=elmo --config.source.corpus=DIR \
        --config.source.vectors_of='["runs/elmo"]'
    python -m ctxjax.train --config experiments/tagging/features.py:kind=elmo --workdir runs/names \
        --config.source.corpus=DIR --config.source.vectors_of='["runs/elmo"]'

The first command runs the frozen model once and stores its vectors; where they are not 1024 wide (768 of bert) or not
of so many layers, it prints the flags that the second one needs. DIR has eng.train, eng.testa and eng.testb. For the
test set: python -m ctxjax.evaluate --workdir runs/names --only spans --config.evals.spans.split=test (words
for parts of speech).

Arguments:
    kind=elmo    words, characters and a learned mix of ELMo's layers, two LSTMs of 200 cells each way, CRF.
    kind=elmo_output  the same with a second mix at the output of the LSTMs, as ELMo's SQuAD and SNLI models have it.
    kind=bert    BERT's layers alone, two LSTMs of 768 cells each way, words told apart. BERT reads as much of the
        document round a sentence as it can (source.context; 0 reads sentences alone, and is twenty times faster).
    kind=static  ELMo's tagger without ELMo: words and characters. The words begin with the rows of a run of word
        vectors, or of a file once converted (python -m ctxjax.convert FILE runs/vectors --to ctxjax), by
        --config.init_from.path=runs/vectors --config.model.embed_width=WIDTH.
    task=conll2003|ud_english|msra   names; parts of speech of UD English EWT; names in Chinese, character by character
        (unzip dh_msra.zip; nine tenths of its sentences train and decide). Published figures are of conll2003.
    layers=embeddings|last|second_to_last|weighted|weighted_four|concat_four   of kind=bert; the last by default.
    size=small   half as wide, 20 passes, sentences alone: for the vectors of small models on a processor.
    smoke        20 steps on generated text, in seconds.
The number of words must be that of the training file; where it is not, the error names it. AllenNLP's file has the
test set in place of the development set; here eng.testa decides, and eng.testb is never read in training.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config
from ctxjax.data.tasks.tagging import TASKS, Tagging

KINDS = ("elmo", "elmo_output", "bert", "static")
SIZES = ("published", "small")
# what is stored, how many layers of BERT-base that are (0: one, not mixed), and how they are put together
LAYERS = {
    "embeddings": ("0", 0, "mix"),
    "last": ("top", 0, "mix"),
    "second_to_last": ("-2", 0, "mix"),
    "weighted": ("1:", 12, "mix"),
    "weighted_four": ("-4:", 4, "mix"),
    "concat_four": ("-4:", 4, "concat"),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, kind="elmo", task="conll2003", layers="last", size="published", smoke=False)
    for name, known in (("kind", KINDS), ("task", tuple(TASKS)), ("layers", tuple(LAYERS)), ("size", SIZES)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    task = TASKS[arg.task]
    config = _allennlp(task)
    if arg.kind == "elmo_output":
        config.model.features_at = (0, 2)
    elif arg.kind == "bert":
        _bert(config, arg.layers)
    elif arg.kind == "static":
        config.model.update(features=0, feature_layers=0)
        config.objective.mix_l2 = 0.0
        config.init_from.pattern = "^embed/tokens"
    if arg.size == "small":
        config.model.width //= 2
        config.total = "20 epochs"
        config.source.context = 0
    if arg.smoke:
        _smoke(config)
    return config


def _allennlp(task: Tagging) -> ml_collections.ConfigDict:
    """The tagger that ELMo was published with, as AllenNLP's config has it: GloVe in place of Senna."""
    config = run_config("1 epochs", keep=3)
    config.batch_size = 64
    config.total = "75 epochs"
    config.patience = 25
    config.model = dict(
        name="taglm",
        vocab_size=task.words,
        labels=task.labels("BIOES"),
        width=200,
        embed_width=50,
        depth=2,
        features=1024,
        features_at=(0,),
        feature_layers=3,
        combine="mix",
        mix_norm=False,
        cell="lstm",
        chars="cnn",
        char_dim=16,
        char_width=128,
        char_activation="relu",
        max_chars=50,
        scheme="BIOES" if task.read else "",
        crf=True,
        crf_ends=False,
        constrained="decoding" if task.read else "never",
        dropout=0.5,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(name="tagging", crf=True, mix_l2=0.1)
    config.source = dict(
        name="tagged",
        corpus="",
        split="train",
        **task.fields("BIOES"),
        length=128 if task.read else 192,
        vocab="",
        min_count=1,
        lowercase=True,
        zero_digits=False,
        max_chars=50,
        vectors_of=(),
        layers="all",
        pool="mean",
        context=0,
        widths=4,
        together=1,
    )
    config.optim = dict(
        name="adamw",
        lr=1e-3,
        schedule=dict(name="constant"),
        clip=5.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
    )
    config.evals = dict(
        heldout=dict(name="objective", split="heldout", batches=0, batch_size=64, seed=0),
        spans=dict(name="entities", split="heldout", batch_size=64, by_kind=True),
        mix=dict(name="mix"),
    )
    config.best = "highest spans/f1"
    if not task.read:
        del config.evals["spans"]
        config.evals.words = dict(name="word_accuracy", split="heldout", batch_size=64)
        config.best = "highest words/accuracy"
    return config


def _bert(config: ml_collections.ConfigDict, layers: str) -> None:
    """Nothing but layers of BERT-base; what the paper leaves open (optimiser, batch, length) is as for ELMo."""
    stored, count, combine = LAYERS[layers]
    config.model.update(width=768, embed_width=0, chars="none", features=768, feature_layers=count, combine=combine)
    config.model.update(crf=False, constrained="never", dropout=0.1)
    config.objective.update(crf=False, mix_l2=0.0)
    config.source.update(layers=stored, pool="first", context=510, max_chars=0)


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on generated tagged text, with vectors stored for it."""
    from ctxjax.data.generated import generated_tags, store_vectors, tagged_files
    from ctxjax.data.sources.tagged import Source

    folder = generated_tags()
    config.source.update(corpus=folder, length=64, widths=2, max_chars=16 if config.source.max_chars else 0, context=0)
    config.source.update(tagged_files(bool(config.source.read)))
    if config.model.features:
        config.source.vectors_of = (f"{folder}/letters",)
        several = config.model.feature_layers > 0
        config.source.layers = ":" if several else "top"
        layers, width = store_vectors(folder, config.source.to_dict())
        config.model.update(features=width, feature_layers=layers if several else 0)
    source = Source(**{name: value for name, value in config.source.items() if name not in ("name", "vectors_of")})
    config.model.update(vocab_size=source.vocab_size, labels=source.labels, width=16, max_chars=16)
    config.model.update(embed_width=min(config.model.embed_width, 12), char_dim=6, char_width=8, dropout=0.0)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 2e-2
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
    for name in set(config.evals) & {"spans", "words"}:
        config.evals[name].batch_size = 16

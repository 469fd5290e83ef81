r"""Which layer knows what: linear probes of frozen models for parts of speech, names and senses, with control tasks.

Paper: Hewitt and Liang 2019, "Designing and Interpreting Probes with Control Tasks"; Peters et al. 2018, section 5.3,
for the question.
Expected: for parts of speech of the Penn Treebank on ELMo's first layer, accuracy 97.2 and selectivity 26.0 of a linear
probe (table 2 of Hewitt and Liang, from memory: check before it is used); the second layer is more selective.
Hardware and time: two CPU cores; storing the vectors is nearly all of the time, some minutes a task for a small model.

    python -m ctxjax.probe --config experiments/probe/layers.py --config.models='["runs/bert"]' --output probes
    python -m ctxjax.probe --config experiments/probe/layers.py:size=small --output dynamics \
        --config.models='["runs/bert/checkpoints/00001000", "runs/bert/checkpoints/00010000"]'

Files are looked for under CTXJAX_DATA; a part of one is named like tasks.pos.train="en_ewt-ud-train.conllu[:1000]".
Tasks with spans get edge probes, too (Tenney et al. 2019): the kind of each span by the layers up to every one. The
senses are the 45 lexicographer files of WordNet, of SemCor's single words; its first texts are held out, since in its
last ones verbs alone are tagged.

Arguments: size=full|small (default full; small: a thousand training sentences of each task, and 300 to test on), smoke.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg

SIZES = ("full", "small")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    args = parse_arg(arg, size="full", smoke=False)
    if args.size not in SIZES:
        raise ConfigError(f"size={args.size!r} is not one of {', '.join(SIZES)}")
    config = ml_collections.ConfigDict()
    config.models = ()
    config.mixes = ()
    config.probe = dict(epochs=10, batch_size=256, lr=1e-2, weight_decay=0.0, seed=0)
    config.edges = dict(epochs=10, batch_size=32, lr=1e-3, size=256, longest=8, seed=0)
    if args.smoke:
        _smoke(config)
        return config
    small = args.size == "small"
    first, rest = ("[:1000]", "[:300]") if small else ("", "")
    config.tasks = dict(
        pos=_task("tasks/ud_ewt", f"en_ewt-ud-train.conllu{first}", f"en_ewt-ud-dev.conllu{rest}", word=1, tag=3),
        ner=_task("tasks/conll2003", f"eng.train{first}", f"eng.testa{rest}", read="IOB1", scheme="BIO"),
        sense=_task("tasks/wsd", "semcor3.jsonl.gz[300:1300]" if small else "semcor3.jsonl.gz[10%:]",
                    "semcor3.jsonl.gz[:300]" if small else "semcor3.jsonl.gz[:10%]"),
    )  # fmt: skip
    return config


def _task(corpus: str, train: str, heldout: str, **more: object) -> dict[str, object]:
    """A source of tagged words; the program fills in split, models and layers."""
    fields = dict(name="tagged", corpus=corpus, train=train, heldout=heldout, test=heldout, length=1024, read="")
    return {**fields, "scheme": "", "pool": "mean", "context": 0, "max_chars": 0, **more}


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Static vectors of the generated language, which knows names by their last syllable."""
    from ctxjax.data.generated import generated_tags

    folder = generated_tags()
    config.models = (f"{folder}/model.txt",)
    config.tasks = dict(names=_task(folder, "eng.train", "eng.testa", read="IOB1", scheme="BIO"))
    config.probe.update(epochs=2, batch_size=64)
    config.edges.update(epochs=2, size=8)

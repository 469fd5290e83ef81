"""GLUE: nine tasks and the diagnostic set, in the official files (a folder a task, as the GLUE download has them).

Of MRPC `train.rebuilt.tsv`, the whole training set, is read where it lies beside the official `train.tsv`. `quora` is
a file of labelled questions with quotes, which has no official training set. Splits "heldout_mm" and "test_mm" of MNLI
are the mismatched ones, "diagnostic" is the diagnostic set, which has the labels of MNLI.

Reference: Wang et al. 2019, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding".
"""

from __future__ import annotations

from collections.abc import Mapping

from ctxjax.data.tasks import Task, Tfds
from ctxjax.data.tasks.files import BROKEN, number, rows_of

FILES = {"train": ("train.tsv",), "heldout": ("dev.tsv",), "test": ("test.tsv",)}
NLI = ("entailment", "neutral", "contradiction")
PAIR = ("sentence1", "sentence2")
COLA_COLUMNS = ("source", "label", "mark", "sentence")

# A file without its own line of names, but for the test set's.
_cola_rows, _cola_test = (
    rows_of(("sentence",), "label", names=COLA_COLUMNS),
    rows_of(("sentence",), "label", identity="index"),
)
cola = Task(
    kind="classify",
    read=lambda path: (_cola_test if path.name == "test.tsv" else _cola_rows)(path),
    files=FILES,
    labels=("0", "1"),
    metrics=("matthews", "accuracy"),
    submissions={"test": "CoLA.tsv"},
    tfds=Tfds("glue/cola", ("sentence",), classes=("unacceptable", "acceptable"), id="idx"),
)
sst2 = Task(
    kind="classify",
    read=rows_of(("sentence",), "label", identity="index"),
    files=FILES,
    labels=("0", "1"),
    submissions={"test": "SST-2.tsv"},
    tfds=Tfds("glue/sst2", ("sentence",), classes=("negative", "positive"), id="idx"),
)
mrpc = Task(
    kind="classify",
    read=rows_of(("#1 String", "#2 String"), "Quality", identity="index"),
    files={**FILES, "train": ("train.rebuilt.tsv", "train.tsv")},
    labels=("0", "1"),
    metrics=("f1", "accuracy"),
    parts=2,
    symmetric=True,
    positive="1",
    submissions={"test": "MRPC.tsv"},
    tfds=Tfds("glue/mrpc", PAIR, classes=("not_equivalent", "equivalent"), id="idx"),
)
stsb = Task(
    kind="regress",
    read=rows_of(PAIR, "score", identity="index", target=number),
    files=FILES,
    metrics=("pearson", "spearman"),
    parts=2,
    bounds=(0.0, 5.0),
    symmetric=True,
    submissions={"test": "STS-B.tsv"},
    tfds=Tfds("glue/stsb", PAIR, id="idx"),
)
qqp = Task(  # the official files have rows that are cut short, which those who published skipped
    kind="classify",
    read=rows_of(("question1", "question2"), "is_duplicate", identity="id", ragged=True),
    files=FILES,
    labels=("0", "1"),
    metrics=("f1", "accuracy"),
    parts=2,
    symmetric=True,
    positive="1",
    skipped=(BROKEN,),
    submissions={"test": "QQP.tsv"},
    tfds=Tfds("glue/qqp", ("question1", "question2"), classes=("not_duplicate", "duplicate"), id="idx"),
)
quora = Task(
    kind="classify",
    read=rows_of(
        PAIR, "is_duplicate", identity="id", target=lambda text, where: f"{number(text, where):.0f}", quoted="\t"
    ),
    files={"train": ("quora-dev.csv",)},
    labels=("0", "1"),
    metrics=("f1", "accuracy"),
    parts=2,
    symmetric=True,
    positive="1",
)
mnli = Task(
    kind="classify",
    read=rows_of(PAIR, "gold_label", identity="index"),
    files={
        "train": ("train.tsv",),
        "heldout": ("dev_matched.tsv",),
        "test": ("test_matched.tsv",),
        "heldout_mm": ("dev_mismatched.tsv",),
        "test_mm": ("test_mismatched.tsv",),
        "diagnostic": ("diagnostic.tsv", "../diagnostic/diagnostic.tsv"),
    },
    labels=NLI,
    parts=2,
    skipped=("-",),
    submissions={"test": "MNLI-m.tsv", "test_mm": "MNLI-mm.tsv", "diagnostic": "AX.tsv"},
    tfds=Tfds(
        "glue/mnli",
        ("premise", "hypothesis"),
        id="idx",
        splits={
            "train": "train",
            "heldout": "validation_matched",
            "test": "test_matched",
            "heldout_mm": "validation_mismatched",
            "test_mm": "test_mismatched",
            "diagnostic": "glue/ax:test",
        },
    ),
)
qnli = Task(
    kind="classify",
    read=rows_of(("question", "sentence"), "label", identity="index"),
    files=FILES,
    labels=("entailment", "not_entailment"),
    parts=2,
    submissions={"test": "QNLI.tsv"},
    tfds=Tfds("glue/qnli", ("question", "sentence"), id="idx"),
)
rte = Task(
    kind="classify",
    read=rows_of(PAIR, "label", identity="index"),
    files=FILES,
    labels=("entailment", "not_entailment"),
    parts=2,
    submissions={"test": "RTE.tsv"},
    tfds=Tfds("glue/rte", PAIR, id="idx"),
)
wnli = Task(
    kind="classify",
    read=rows_of(PAIR, "label", identity="index"),
    files=FILES,
    labels=("0", "1"),
    parts=2,
    submissions={"test": "WNLI.tsv"},
    tfds=Tfds("glue/wnli", PAIR, classes=("not_entailment", "entailment"), id="idx"),
)

FOLDERS = {
    "cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP", "mnli": "MNLI", "qnli": "QNLI",
    "rte": "RTE", "wnli": "WNLI",
}  # fmt: skip
AVERAGED = ("mnli", "mnli_mm", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")


def average(scores: Mapping[str, float]) -> float:
    """The average of the published tables: nine figures, the two of MNLI apart and WNLI left out.

    Args:
      scores: accuracy, F1 of QQP and MRPC, Matthews' coefficient of CoLA, Spearman's of STS-B, 0 to 100, by the names
        in `AVERAGED`.

    Raises:
      ValueError: a figure is missing.
    """
    missing = [name for name in AVERAGED if name not in scores]
    if missing:
        raise ValueError(f"the average needs the figures of {', '.join(missing)} too")
    return sum(scores[name] for name in AVERAGED) / len(AVERAGED)

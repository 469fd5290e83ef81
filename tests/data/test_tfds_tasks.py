"""Tasks of TensorFlow Datasets: the package's own builders prepare small official files, and both are read the same."""

import importlib
import io
import itertools
import json
import pathlib
import shutil
import types

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import make_tokenizer
from ctxjax.data.generated_questions import generated_questions
from ctxjax.data.sources import questions
from ctxjax.data.sources.examples import Source
from ctxjax.data.tasks import glue, open_task
from ctxjax.data.tasks.splits import Files, Records, known, open_splits

TEXTS = ["It's a good one .", 'He "ran" past\\nthe café ', "kula bade, 2,000 figo", "sa te vi", "wo ", "x y z"]
KNOWN = [f"glue.{name}" for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")]
KNOWN += ["sentiment.imdb", "topics.trec6", "topics.ag_news", "topics.yelp_polarity", "entailment.snli", "choices.copa"]


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepare a dataset by its own builder from files that are here, what it would download being these."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text
    from etils import epath

    trec = importlib.import_module("tensorflow_datasets.datasets.trec.trec_dataset_builder")
    gfile = types.SimpleNamespace(GFile=open)
    monkeypatch.setattr(trec, "tf", types.SimpleNamespace(io=types.SimpleNamespace(gfile=gfile)))
    superglue = importlib.import_module("tensorflow_datasets.text.super_glue")
    monkeypatch.setattr(superglue, "tf", types.SimpleNamespace(int32=np.int32))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))

    def prepared(name, folder):
        def fetch(manager, asked):
            return {key: epath.Path(folder / key) for key in asked} if isinstance(asked, dict) else epath.Path(folder)

        def archive(manager, path):
            files = sorted(file for file in pathlib.Path(path).rglob("*") if file.is_file())
            return [(str(file.relative_to(pathlib.Path(path))), open_now(file)) for file in files]

        monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", fetch)
        monkeypatch.setattr(tfds.download.DownloadManager, "download", fetch)
        monkeypatch.setattr(tfds.download.DownloadManager, "iter_archive", archive)
        builder = tfds.builder(name, file_format="array_record")
        builder.download_and_prepare()
        return builder

    return prepared


def open_now(file):
    return io.BytesIO(file.read_bytes())


def table(path, names, rows, between="\t"):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [between.join(map(str, row)) for row in ([names] if names else []) + rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def same(found, wanted, ids=True):
    kept = [(one.texts, one.target, *([one.id] if ids else [])) for one in found]
    assert kept == [(one.texts, one.target, *([one.id] if ids else [])) for one in wanted]
    return kept


GLUE = {  # columns of texts, the column of the target, targets
    "sst2": (("sentence",), "label", "01"),
    "stsb": (("sentence1", "sentence2"), "score", ("3.800", "0.0", "5")),
    "qqp": (("question1", "question2"), "is_duplicate", "01"),
    "qnli": (("question", "sentence"), "label", ("entailment", "not_entailment")),
    "rte": (("sentence1", "sentence2"), "label", ("entailment", "not_entailment")),
    "wnli": (("sentence1", "sentence2"), "label", "01"),
    "mnli": (("sentence1", "sentence2"), "gold_label", glue.NLI),
}


@pytest.mark.parametrize("name", GLUE)
def test_glue(tmp_path, prepare, name):
    columns, label, targets = GLUE[name]
    task, folder = open_task(f"glue.{name}"), tmp_path / glue.FOLDERS[name]
    identity = "id" if name == "qqp" else "index"
    for number, (split, (file, *_)) in enumerate(task.files.items()):
        told = not split.startswith(("test", "diagnostic"))
        rows = []
        for index in range(7):
            texts = [TEXTS[(index + number + place) % len(TEXTS)] for place in range(len(columns))]
            rows.append([index, *texts, *([targets[(index + number) % len(targets)]] if told else [])])
        table(folder / file, [identity, *columns, *([label] if told else [])], rows)
    prepare(f"glue/{name}", tmp_path)
    if name == "mnli":
        prepare("glue/ax", folder / "diagnostic.tsv")
    official = open_splits(folder, task, f"glue.{name}")
    records = open_splits(f"tfds:glue/{name}", task, f"glue.{name}")
    assert isinstance(official, Files) and isinstance(records, Records) and set(official.names) == set(records.names)
    for split in official.names:
        kept = same(records.read(split), official.read(split))
        assert len(kept) == 7 and {one[1] is None for one in kept} == {split.startswith(("test", "diagnostic"))}


def test_cola_gives_the_same_rows_by_its_source(tmp_path, prepare):
    make_tokenizer("wordpiece").save(tmp_path / "wordpiece")
    folder = tmp_path / "CoLA"
    table(folder / "train.tsv", [], [["gj04", index % 2, "", f"{text} {index}"] for index, text in enumerate(TEXTS)])
    table(folder / "dev.tsv", [], [["gj04", 1, "", TEXTS[0]], ["l-93", 0, "*", TEXTS[1]]])
    table(folder / "test.tsv", ["index", "sentence"], list(enumerate(TEXTS[2:4])))
    prepare("glue/cola", tmp_path)

    def make(corpus, **more):
        return Source(corpus, task="glue.cola", tokenizer=str(tmp_path / "wordpiece"), length=24, **more)

    for more in ({}, {"limit": 3}, {"split": "heldout"}, {"split": "test"}):
        found, wanted = make("tfds:glue/cola:2.0.0", **more), make(folder, **more)
        same(found.examples, wanted.examples)
        rows, official = (source.take(np.arange(source.count)) for source in (found, wanted))
        assert np.array_equal(rows["inputs"]["tokens"], official["inputs"]["tokens"])
        assert np.array_equal(rows["targets"], official["targets"]) and found.dropped(1) == wanted.dropped(1)
    before = make("tfds:glue/cola").fingerprint
    assert "tfds" not in json.dumps(before) and str(tmp_path) not in json.dumps(before)
    assert before["train"] != make("tfds:glue/cola", split="heldout").fingerprint["heldout"]
    shutil.move(tmp_path / "tfds", tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"glue/cola is not prepared under .*never downloads; .*download_and_prepare"):
        make("tfds:glue/cola")
    shutil.move(tmp_path / "elsewhere", tmp_path / "tfds")
    assert make("tfds:glue/cola").fingerprint == before
    for corpus, message in (
        ("tfds:glue/cola:train", r"config.source.split names the split, so leave out ':train'"),
        ("tfds:glue/rte", r"config.source.corpus='tfds:glue/rte': glue.cola is tfds:glue/cola$"),
        ("tfds:glue/cola:1.0.0", r"glue/cola:1.0.0 is not prepared"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            make(corpus)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"config.source.split='dev' is no split of glue.cola"):
        make("tfds:glue/cola", split="dev")
    with pytest.raises(ConfigError, match=r"TFDS does not have choices.swag; it has .*glue.cola, "):
        Source("tfds:swag", task="choices.swag", tokenizer="x")
    where = next(iter((tmp_path / "tfds").rglob("label.labels.txt")))
    where.write_text("good\nbad\n")
    with pytest.raises(ConfigError, match=r"classes of 'label' are good, bad, where there should be unacceptable, acc"):
        make("tfds:glue/cola")


def test_mrpc(tmp_path, prepare):
    names = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    rows = [[index % 2, index, 100 + index, text, TEXTS[index - 1]] for index, text in enumerate(TEXTS)]
    held = [[row[1], row[2]] for row in rows[2:4]]
    table(tmp_path / "dev_ids", [], held)
    table(tmp_path / "train", ["\ufeff" + names[0], *names[1:]], rows)
    table(tmp_path / "test", names, rows[:1])
    table(tmp_path / "MRPC" / "train.tsv", names, [row for row in rows if row[1:3] not in held])
    table(tmp_path / "MRPC" / "dev.tsv", names, [row for row in rows if row[1:3] in held])
    table(tmp_path / "MRPC" / "test.tsv", ["index", *names[1:]], [[0, *rows[0][1:]]])
    prepare("glue/mrpc", tmp_path)
    for split in ("train", "heldout", "test"):
        task = glue.mrpc
        found, wanted = (open_splits(one, task, "glue.mrpc") for one in ("tfds:glue/mrpc", tmp_path / "MRPC"))
        same(found.read(split), wanted.read(split), ids=split == "test")


def _imdb(folder):
    for split in ("train", "test"):
        for label in ("neg", "pos", *(["unsup"] if split == "train" else [])):
            (folder / "aclImdb" / split / label).mkdir(parents=True)
            for index, text in enumerate(TEXTS[:3]):
                (folder / "aclImdb" / split / label / f"{index}_4.txt").write_text(f"{label} {text}\n")
    return folder / "aclImdb"


def _trec(folder):
    kinds = ["DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"]
    for split in ("train", "test"):
        lines = [f"{kind}:other {text.strip()}\n" for kind, text in zip(kinds, ["What is it ?", *TEXTS[2:], "a"])]
        (folder / split).write_text("".join(lines))
        numbered = [f"{kinds.index(line.partition(':')[0])} {line.partition(' ')[2]}" for line in lines]
        (folder / f"TREC.{split}.all").write_text("".join(numbered))
    return folder


def _ag_news(folder):
    for split in ("train", "test"):
        rows = [[f'"{index % 4 + 1}"', '"A ""title"" "', f'"{text}"'.replace('"ran"', "ran")] for index, text in _all()]
        table(folder / "ag_news_csv" / "ag_news_csv" / f"{split}.csv", [], rows, between=",")
    return folder / "ag_news_csv" / "ag_news_csv"


def _yelp(folder):
    for split in ("train", "test"):
        rows = [[f'"{index % 2 + 1}"', '"' + text.replace('"', '""') + '"'] for index, text in _all()]
        table(folder / "yelp_review_polarity_csv" / f"{split}.csv", [], rows, between=",")
    return folder / "yelp_review_polarity_csv"


def _snli(folder):
    for name in ("train", "dev", "test"):
        rows = [[text, "a b", [*glue.NLI, "-"][index % 4]] for index, text in _all()]
        names = ["sentence1", "sentence2", "gold_label"]
        table(folder / "snli_1.0" / f"snli_1.0_{name}.txt", names, rows)
        lines = [json.dumps(dict(zip(names, row))) + "\n" for row in rows]
        (folder / "snli_1.0" / f"snli_1.0_{name}.jsonl").write_text("".join(lines))
    return folder / "snli_1.0"


def _copa(folder):
    (folder / "COPA").mkdir()
    items = []
    for index, text in _all():
        row = {"premise": text.strip(), "choice1": "a b", "choice2": "c d", "idx": index, "label": index % 2}
        asked = "cause" if index % 3 else "effect"
        for name in ("train", "val", "test"):
            told = {key: value for key, value in row.items() if name != "test" or key != "label"}
            with open(folder / "COPA" / f"{name}.jsonl", "a") as file:
                file.write(json.dumps({**told, "question": asked}) + "\n")
        items.append(
            f'<item id="{index}" asks-for="{asked}" most-plausible-alternative="{index % 2 + 1}">'
            f"<p>{row['premise']}</p><a1>a b</a1><a2>c d</a2></item>"
        )
    for name in ("dev", "test"):
        text = f'<?xml version="1.0"?><copa-corpus>{"".join(items)}</copa-corpus>'
        text = text if name == "dev" else text.replace("most-plausible-alternative", "none")
        (folder / "COPA" / f"copa-{name}.xml").write_text(text)
    return folder / "COPA"


def _all():
    return list(enumerate(TEXTS))


@pytest.mark.parametrize(
    ("name", "dataset", "write"),
    [
        ("sentiment.imdb", "imdb_reviews", _imdb),
        ("topics.trec6", "trec", _trec),
        ("topics.ag_news", "ag_news_subset", _ag_news),
        ("topics.yelp_polarity", "yelp_polarity_reviews", _yelp),
        ("entailment.snli", "snli", _snli),
        ("choices.copa", "super_glue/copa", _copa),
    ],
)
def test_other_tasks(tmp_path, prepare, name, dataset, write):
    folder, task = write(tmp_path), open_task(name)
    prepare(dataset, tmp_path)
    found, wanted = (open_splits(one, task, name) for one in (f"tfds:{dataset}", folder))
    for split in wanted.names:
        told = [one if one.target not in task.skipped else one._replace(target=None) for one in wanted.read(split)]
        if task.tfds.id:
            assert len(same(found.read(split), told)) == len(TEXTS)
        else:  # TFDS has them in the order of the digests of their keys
            every = [sorted(each, key=str) for each in ([one[:2] for one in found.read(split)], [o[:2] for o in told])]
            assert every[0] == every[1] and len(every[0]) == 6
    assert "heldout" not in found.names or any(one.target is not None for one in found.read("heldout"))


def test_every_task_that_the_package_has_is_read_here(prepare):
    import tensorflow_datasets as tfds

    assert known() == sorted(KNOWN)
    diagnostic, mnli = (tfds.builder(name).info.features for name in ("glue/ax", "glue/mnli"))
    assert list(diagnostic) == list(mnli) and diagnostic["label"].names == mnli["label"].names
    for name in KNOWN:
        task = open_task(name)
        features = tfds.builder(task.tfds.dataset).info.features
        texts = [type(features[text]).__name__ for text in task.tfds.texts]
        assert texts == ["Text"] * len(texts) and features[task.tfds.target].shape == ()
        if task.kind != "regress":
            assert set(features[task.tfds.target].names) == set(task.tfds.classes or task.labels)
            assert len(features[task.tfds.target].names) == (task.choices or len(task.labels))
        assert not task.tfds.id or features[task.tfds.id].np_dtype == np.int32


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_squad(tmp_path, prepare, monkeypatch, version):
    folder = tmp_path / "squad"
    shutil.copytree(generated_questions(), folder)
    for split in ("train", "dev"):
        shutil.copy(folder / f"{split}-v{version}.json", tmp_path / split)
    prepare(f"squad/v{version}", tmp_path)
    monkeypatch.setenv("CTXJAX_CACHE", str(tmp_path / "cache"))
    sizes = {"length": 48, "stride": 12, "max_query": 6, "version": version, "tokenizer": str(folder / "tokenizer")}
    files = {"train": (f"train-v{version}.json",), "heldout": (f"dev-v{version}.json",)}
    corpus = f"tfds:squad/v{version}"
    for more in ({}, {"split": "heldout"}, {"split": "heldout", "held_out": 0.3}):
        found, wanted = questions.Source(corpus, **sizes, **more), questions.Source(folder, **sizes, **files, **more)
        every = [{one.id: one._replace(where="") for one in source.questions} for source in (found, wanted)]
        assert every[0] == every[1] and len(every[0]) == len(found.questions) > 0
        rows = []
        for source in (found, wanted):
            batch = source.take(np.arange(len(source.windows)))
            ids = [source.questions[question].id for question in source.windows[:, 0]]
            leaves = batch["inputs"]["tokens"], batch["targets"], batch["weights"]
            rows.append(sorted(zip(ids, *(leaf.tolist() for leaf in leaves))))
        assert rows[0] == rows[1] and len(rows[0]) > 0
    together = [one.context for one in found.questions]
    assert sum(one is not two for one, two in itertools.pairwise(together)) == len(set(together)) - 1
    assert str(tmp_path) not in json.dumps(found.fingerprint) and "tfds" not in json.dumps(found.fingerprint)
    assert not list((tmp_path / "tfds").rglob("index"))
    for fields, message in (
        ({"split": "test"}, r"config.source.split='test' has no files; there are train, heldout"),
        ({"corpus": "tfds:squd"}, r"TFDS knows no dataset 'squd'; did you mean 'squad'\?"),
        ({"corpus": f"{corpus}:train"}, "leave out ':train'"),
        ({"tokenizer": ""}, "config.source.tokenizer is empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            questions.Source(**{"corpus": corpus, **sizes, **fields})
    if version == "1.1":
        with pytest.raises(ConfigError, match=r"config.source.version='2.0', has no feature is_impossible"):
            questions.Source(corpus, **{**sizes, "version": "2.0"})

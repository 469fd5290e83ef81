"""Readers of official layouts on small files of the same layout, mistakes by file and line, counts of real files."""

import json
import lzma

import pytest

from ctxjax.config import ConfigError
from ctxjax.data.tasks import Task, glue, open_task
from ctxjax.data.tasks.files import BROKEN

REAL = [  # folder, task, split, examples as published, the first target
    ("glue/CoLA", "glue.cola", "train", 8551, "1"),
    ("glue/CoLA", "glue.cola", "test", 1063, None),
    ("glue/SST-2", "glue.sst2", "heldout", 872, "1"),
    ("glue/MRPC", "glue.mrpc", "train", 3668, "1"),
    ("glue/MRPC", "glue.mrpc", "test", 1725, None),
    ("glue/STS-B", "glue.stsb", "heldout", 1500, 5.0),
    ("glue/QNLI", "glue.qnli", "heldout", 5463, "entailment"),
    ("glue/RTE", "glue.rte", "train", 2490, "not_entailment"),
    ("glue/WNLI", "glue.wnli", "test", 146, None),
    ("glue/MNLI", "glue.mnli", "diagnostic", 1104, None),
    ("qqp", "glue.quora", "train", 20214, "0"),
    ("sst5", "sentiment.sst5", "train", 8544, "4"),
    ("mr", "sentiment.mr", "train", 10662, "0"),
    ("trec6", "topics.trec6", "test", 500, "5"),
    ("sick", "entailment.sick", "test", 4927, "NEUTRAL"),
    ("sick", "entailment.sick_relatedness", "heldout", 500, 3.6),
    ("codah/cv_split/fold_0", "choices.codah", "train", 1665, None),
    ("copa", "choices.copa", "test", 500, None),
    ("dream", "choices.dream", "heldout", 2040, 1),
]
SWAG = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"


def read(task, path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return list(open_task(task).read(path))


@pytest.mark.parametrize(
    ("task", "name", "text", "texts", "target", "identity"),
    [
        ("glue.cola", "train.tsv", 'gj04\t1\t\tHe "ran\n', ('He "ran',), "1", "0"),
        ("glue.cola", "test.tsv", "index\tsentence\n7\tHe ran.\n", ("He ran.",), None, "7"),
        ("glue.sst2", "dev.tsv", "sentence\tlabel\nit is good \t1\n", ("it is good",), "1", "0"),
        (
            "glue.mrpc",
            "dev.tsv",
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n0\t1\t2\ta b\tc d\r\n",
            ("a b", "c d"),
            "0",
            "0",
        ),
        ("glue.stsb", "train.tsv", "index\tsentence1\tsentence2\tscore\n3\ta\tb\t2.5\n", ("a", "b"), 2.5, "3"),
        (
            "glue.mnli",
            "dev_matched.tsv",
            "index\tsentence1\tsentence2\tlabel1\tgold_label\n5\ta\tb\tneutral\tentailment\n",
            ("a", "b"),
            "entailment",
            "5",
        ),
        (
            "glue.qnli",
            "dev.tsv",
            "index\tquestion\tsentence\tlabel\n0\tq\ts\tentailment\n",
            ("q", "s"),
            "entailment",
            "0",
        ),
        (
            "glue.quora",
            "x.csv",
            '\tid\tsentence1\tsentence2\tis_duplicate\n9\tk\t"a ""b"\tc\t1.0\n',
            ('a "b', "c"),
            "1",
            "k",
        ),
        ("sentiment.sst5", "stsa.fine.dev", "3 a fine film\n", ("a fine film",), "3", "0"),
        ("sentiment.imdb", "t.jsonl", '{"id": 4, "label": 1, "text": "good"}\n', ("good",), "1", "4"),
        ("topics.ag_news", "t.csv", '"3","Title","Text\\nmore"\n', ("Title Text\nmore",), "3", "0"),
        (
            "entailment.snli",
            "s.jsonl",
            '{"gold_label": "-", "sentence1": "a", "sentence2": "b", "pairID": "p"}\n',
            ("a", "b"),
            "-",
            "p",
        ),
        (
            "entailment.sick",
            "S.txt",
            "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n1\ta\tb\t4.5\tNEUTRAL\n",
            ("a", "b"),
            "NEUTRAL",
            "1",
        ),
        ("choices.swag", "v.csv", SWAG + '0,v,1,s,He runs.,He,g,"w, x",y,z,t,2\n', None, 2, "0"),
        ("choices.codah", "t.tsv", "o\tHe\ta\tb\tc\td\t3\n", ("He", "a", "b", "c", "d"), 3, "0"),
        (
            "choices.copa",
            "c.xml",
            '<c><item id="4" asks-for="effect" most-plausible-alternative="2">'
            "<p>P.</p><a1>A.</a1><a2>B.</a2></item></c>",
            ("P. What happened as a result?", "A.", "B."),
            1,
            "4",
        ),
        (
            "choices.dream",
            "d.json",
            json.dumps([[["M: a", "W: b"], [{"question": "q?", "choice": ["x", "y", "z"], "answer": "y"}], "4-1"]]),
            ("M: a W: b", "q? x", "q? y", "q? z"),
            1,
            "4-1-0",
        ),
        ("own.choices", "t.jsonl", '{"texts": ["a", "b", "c"], "label": 1, "id": "q"}\n', ("a", "b", "c"), 1, "q"),
        ("own.scores", "t.jsonl", '{"texts": ["a", "b"], "label": 1}\n', ("a", "b"), 1.0, "0"),
    ],
)
def test_layouts(tmp_path, task, name, text, texts, target, identity):
    (found,) = read(task, tmp_path / name, text)
    assert found.texts == (texts or ("He runs.", "He w, x", "He y", "He z", "He t"))
    assert found.target == target and type(found.target) is type(target)
    assert found.id == identity and str(tmp_path / name) in found.where


def test_latin_1_and_compressed_files(tmp_path):
    assert read("topics.trec6", tmp_path / "t", "1 Qué ?\n", "latin-1")[0].texts == ("Qué ?",)
    (tmp_path / "t.jsonl.xz").write_bytes(lzma.compress(b'{"label": 0, "text": "bad"}\n'))
    assert next(open_task("sentiment.imdb").read(tmp_path / "t.jsonl.xz")).target == "0"
    for name in ("neg", "pos"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1_9.txt").write_text(name)
    assert [one.texts[0] for one in open_task("sentiment.imdb").read(tmp_path / "train")] == ["neg", "pos"]


def test_rows_of_qqp_that_are_cut_short_are_told_apart(tmp_path):
    text = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t1\n4\t5\tbroken\n"
    good, bad = read("glue.qqp", tmp_path / "train.tsv", text)
    assert good.target == "1" and bad.target == BROKEN and bad.target in glue.qqp.skipped


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("glue.rte", "index\tsentence1\tlabel\n0\ta\tentailment\n", "line 2: there is no column 'sentence2'"),
        ("glue.rte", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\n", "line 2: 3 columns, where there should be 4"),
        ("glue.stsb", "index\tsentence1\tsentence2\tscore\n0\ta\tb\tx\n", "line 2: 'x' is not a number"),
        ("choices.codah", "o\tHe\ta\tb\tc\td\t4\n", "line 1: '4' is not the number of one of 4 choices, from 0"),
        ("entailment.snli", '{"gold_label": "neutral"}\n', "line 1: there is no field 'sentence1'"),
        ("entailment.snli", "{\n", "line 1: not a JSON object"),
        ("choices.copa", "<c>", "not XML"),
        ("choices.copa", '<c><item id="1" asks-for="why"/></c>', "item 1: asks-for='why'"),
        (
            "choices.dream",
            '[[["a"], [{"question": "q", "choice": ["x"], "answer": "y"}], "7"]]',
            "dialogue 7: 1 choices",
        ),
        ("own.pairs", '{"texts": ["a"]}\n', "line 1: 'texts' is not a list of 2 texts"),
    ],
)
def test_mistakes_are_one_sentence_with_file_and_line(tmp_path, task, text, message):
    with pytest.raises(ConfigError, match=f"(?s){tmp_path}/file.*{message}"):
        read(task, tmp_path / "file", text)


def test_names_of_tasks():
    assert open_task("ctxjax.data.tasks.glue.rte") is glue.rte
    for name, message in (
        ("glue.rt", "there is no 'rt' in 'glue'; did you mean 'rte'"),
        ("glu.rte", "names no module of tasks; did you mean 'glue'"),
        ("rte", "names no module of tasks"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_task(name)


def test_the_average_is_that_of_the_published_table():
    """Devlin et al. 2019, table 1: 79.6, 82.1, and 75.1 of GPT, each of the row's nine figures."""
    rows = {
        79.6: (84.6, 83.4, 71.2, 90.5, 93.5, 52.1, 85.8, 88.9, 66.4),
        82.1: (86.7, 85.9, 72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1),
        75.1: (82.1, 81.4, 70.3, 87.4, 91.3, 45.4, 80.0, 82.3, 56.0),
    }
    for published, figures in rows.items():
        assert round(glue.average(dict(zip(glue.AVERAGED, figures))), 1) == published
    with pytest.raises(ValueError, match="cola"):
        glue.average({"mnli": 1.0})


@pytest.mark.real_data
@pytest.mark.parametrize(("folder", "task", "split", "count", "target"), REAL)
def test_real_files_have_the_published_numbers_of_examples(data_root, folder, task, split, count, target):
    found = open_task(task)
    assert isinstance(found, Task)
    examples = list(found.read(found.path(data_root / "tasks" / folder, split)))
    assert len(examples) == count and (target is None or examples[0].target == target)
    assert sum(not all(one.texts) for one in examples if one.target is not None) == 0

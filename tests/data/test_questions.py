"""Rows of questions against rows made one piece after the other; what is passed over, cut, left out and held out."""

import json

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import generated
from ctxjax.data.generated_questions import generated_questions
from ctxjax.data.sources import questions
from tests.data.test_squad import CONTEXT, ask, layout, write
from tests.evaluators import squad_oracle as oracle


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_every_row_is_the_published_one(version):
    sizes = {"length": 48, "stride": 12, "max_query": 3}
    source = questions.Source(generated_questions(), version=version, train=(f"dev-v{version}.json",), **sizes)
    tokenizer, number = source.tokenizer, 0
    batch = source.take(np.arange(len(source.windows)))
    inputs = batch["inputs"]
    for question, one in enumerate(source.questions):
        for row in oracle.rows(one, tokenizer, **sizes, training=True):
            count = len(row.tokens)
            assert inputs["tokens"][number, :count].tolist() == [tokenizer.ids[token] for token in row.tokens]
            assert (inputs["tokens"][number, count:] == tokenizer.pad_id).all()
            assert inputs["segment_ids"][number].tolist() == row.segments + [0] * (48 - count)
            assert inputs["mask"][number].tolist() == [True] * count + [False] * (48 - count)
            assert tuple(batch["targets"][number]) == row.answer and source.windows[number, 0] == question
            number += 1
    assert number == len(source.windows) and (batch["weights"] == 1.0).all() and not inputs["cls_positions"].any()
    assert any(one.impossible for one in source.questions) == (version == "2.0")
    none = (batch["targets"] == 0).all(axis=1)
    assert 0.3 < none.mean() < 0.95  # windows without the answer stay


@pytest.fixture
def make(tmp_path):
    def made(content, **fields):
        generated.make_tokenizer("wordpiece").save(tmp_path / "tokenizer")
        for name in ("train", "dev"):
            write(tmp_path / f"{name}-v1.1.json", content)
        return lambda split: questions.Source(tmp_path, split, **{"length": 80, "max_query": 8} | fields)

    return made


def test_an_answer_that_is_not_found_is_passed_over_in_training_and_counted(make, capsys):
    lost = [ask("2", "John Smith", 10), ask("3", "x", 500), {"id": "4", "question": "Why?", "answers": []}]
    open_source = make(layout(ask(), *lost))
    source = open_source("train")
    assert source.windows.tolist() == [[0, 0, 11, 12, 12, 1]]  # "(" is as unknown a piece as "1895", and comes first
    said = capsys.readouterr().err
    assert "train: 1 questions without an answer left out, which are for version=2.0" in said
    assert "train: 2 answers not found where they are said to begin, their questions passed over" in said
    heldout = open_source("heldout")
    assert heldout.windows[:, 5].tolist() == [1, 0, 0] and len(heldout.questions) == 3
    assert heldout.take(np.arange(3))["weights"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert "heldout: 2 answers not found where they are said to begin, without a share" in capsys.readouterr().err


def test_questions_are_cut_and_a_pass_counts_them_not_windows(make, capsys):
    long = ask(question="ba de fi go ku la me ni po ru", context=CONTEXT)
    source = make(layout(long, ask("2")), length=16, stride=4)("train")
    assert len(source.query(0)) == 8 and "1 questions cut to source.max_query" in capsys.readouterr().err
    assert len(source.windows) > 4 and source.steps_per_pass(1) == 2
    counted = make(layout(long, ask("2")), length=16, stride=4, count_windows=True)("train")
    assert counted.steps_per_pass(1) == len(source.windows)


def test_articles_are_held_out_of_the_files_of_training(make):
    articles = [
        layout(ask(f"{number}"), title=f"article {number}", context=CONTEXT + "x" * number) for number in range(40)
    ]
    content = {"data": [article["data"][0] for article in articles] + [articles[0]["data"][0] | {"paragraphs": []}]}
    open_source = make(content, held_out=0.3)
    titles = {split: {one.title for one in open_source(split).questions} for split in ("train", "heldout")}
    assert not titles["train"] & titles["heldout"] and len(titles["train"] | titles["heldout"]) == 40
    assert 4 < len(titles["heldout"]) < 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": "1.2"}, "config.source.version='1.2' is not one of 1.1, 2.0"),
        ({"length": 12}, r"length > max_query \+ 4"),
        ({"held_out": 1.5}, "config.source.held_out=1.5 is not a share"),
        ({"train": ("no.json",)}, "config.source.train: there is no file .*no.json"),
        ({"train": ()}, "config.source.split='train' has no files; there are heldout"),
        ({"tokenizer": "nowhere"}, "vocabulary .*nowhere does not exist"),
        ({"version": "2.0"}, r"qas\[0\]: no answer, and is_impossible is not true"),
    ],
)
def test_mistakes_are_named(make, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(layout({"id": "4", "question": "Why?", "answers": []}, ask()), **fields)("train").take(np.array([0]))


@pytest.mark.parametrize("kind", ["byte_bpe", "bpe", "words"])
def test_rows_of_other_families(kind, tmp_path):
    """The marks of the family; no answer is the place of the one vector; an answer is its letters."""
    generated.make_tokenizer(kind).save(tmp_path)
    source = questions.Source(generated_questions(), tokenizer=tmp_path, length=48, stride=12, max_query=12)
    batch = source.take(np.arange(40))
    inputs, lengths = batch["inputs"], batch["inputs"]["mask"].sum(axis=1)
    assert inputs["cls_positions"][:, 0].tolist() == (lengths - 1).tolist() and "segment_ids" not in inputs
    found = 0
    for row, (question, first) in enumerate(source.windows[:40, :2].tolist()):
        one, (start, end) = source.questions[question], batch["targets"][row].tolist()
        if start == lengths[row] - 1:
            assert end == start
            continue
        shift = source.place_of_window(question) - first
        offsets = source.context(question)[1]
        letters = one.context[offsets[start - shift, 0] : offsets[end - shift, 1]]
        assert letters.strip() == one.answers[0].text
        found += 1
    assert found > 5


@pytest.mark.real_data
def test_rows_of_the_real_questions(data_root, tmp_path):
    """Both files of the data folder, with a vocabulary of syllables, against rows made piece by piece."""
    folder = data_root / "tasks" / "squad"
    for name in ("squad_v1_1190.json", "squad_v2_half_dev.json"):
        content = json.loads((folder / name).read_text())
        content["data"] = content["data"][:1]
        write(tmp_path / name, content)
    generated.make_tokenizer("wordpiece").save(tmp_path / "tokenizer")
    files = ("squad_v1_1190.json", "squad_v2_half_dev.json")
    source = questions.Source(tmp_path, version="2.0", train=files, held_out=0.01)
    batch = source.take(np.arange(len(source.windows)))
    number = 0
    for one in source.questions:
        for row in oracle.rows(one, source.tokenizer, 384, 128, 64, training=True) or ():
            ids = [source.tokenizer.ids[token] for token in row.tokens]
            assert batch["inputs"]["tokens"][number, : len(ids)].tolist() == ids
            assert tuple(batch["targets"][number]) == row.answer
            number += 1
    assert number == len(source.windows) > 100

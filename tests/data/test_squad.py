"""SQuAD's files: what is in them, mistakes in them, questions that stand in two, articles held out."""

import json

import pytest

from ctxjax.config import ConfigError
from ctxjax.data.tasks import squad
from ctxjax.data.tasks.squad import Answer

CONTEXT = "The leader was John Smith (1895-1943)."


def layout(*questions, title="Smith", context=CONTEXT, version="1.1"):
    return {
        "version": version,
        "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}],
    }


def ask(name="1", text="1895", start=27, question="When was he born?", **more):
    return {"id": name, "question": question, "answers": [{"text": text, "answer_start": start}], **more}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_both_versions(tmp_path):
    impossible = {"id": "2", "question": "Why?", "is_impossible": True, "answers": [], "plausible_answers": [1]}
    found = list(squad.read(write(tmp_path / "a.json", layout(ask(), impossible, version="v2.0"))))
    first, second = found
    assert first.answers == (Answer("1895", 27),) and not first.impossible and first.title == "Smith"
    assert first.context[27:31] == "1895" and first.where.endswith("a.json, data[0].paragraphs[0].qas[0]")
    assert second.impossible and second.answers == () and second.context is first.context
    unanswered = {"id": "3", "question": "Who?"}  # as in a test set
    assert next(squad.read(write(tmp_path / "b.json", layout(unanswered)))).answers == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"a.json is not JSON in UTF-8"),
        ("[" * 100_000, r"a.json is not JSON in UTF-8"),
        ([], r"a.json has no list 'data', as SQuAD's layout has it"),
        ({"data": []}, r"a.json has no question"),
        ({"data": [{"title": "x"}]}, r"data\[0\] has no list 'paragraphs'"),
        (layout(context=3), r"data\[0\].paragraphs\[0\] has no text 'context'"),
        (layout({"question": "?"}), r"qas\[0\] has no text or number 'id'"),
        (layout(ask(), "?"), r"qas\[1\] has no text or number 'id'"),
        (layout(ask(), ask()), r"qas\[1\]: the id '1' was there before"),
        (layout(ask(start="27")), r"answers\[0\] has no number 'answer_start'"),
        (layout(ask(start=True)), r"answers\[0\] has no number 'answer_start'"),
        (layout(ask(is_impossible="no")), r"is_impossible is 'no', neither true nor false"),
    ],
)
def test_mistakes_are_one_sentence_with_the_place(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        list(squad.read(write(tmp_path / "a.json", content)))


def test_a_file_that_is_not_there_or_not_utf8(tmp_path):
    with pytest.raises(ConfigError, match=r"none.json cannot be read"):
        list(squad.read(tmp_path / "none.json"))
    (tmp_path / "a.json").write_bytes(b'{"data": "\xff"}')
    with pytest.raises(ConfigError, match=r"a.json is not JSON in UTF-8"):
        list(squad.read(tmp_path / "a.json"))


def test_a_question_of_two_files_counts_once(tmp_path):
    other = layout(
        ask("x", question="WHEN was  he born?"), ask("y", question="Who?"), context=CONTEXT.replace(" ", "  ")
    )
    files = [write(tmp_path / name, content) for name, content in (("a.json", layout(ask())), ("b.json", other))]
    kept = squad.distinct(question for file in files for question in squad.read(file))
    assert [one.id for one in kept] == ["1", "y"]


def test_articles_are_held_out_whole_and_always_the_same():
    titles = [f"article {number}" for number in range(2000)]
    held = [title for title in titles if squad.held_out(title, 0.25)]
    assert 0.22 < len(held) / len(titles) < 0.28
    assert set(held) <= {title for title in titles if squad.held_out(title, 0.5)}
    assert not any(squad.held_out(title, 0.0) for title in titles)
    assert [squad.held_out(title, 0.5) for title in ("Warsaw", "Normans", "Force", "Rhine")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.real_data
def test_the_real_files(data_root):
    folder = data_root / "tasks" / "squad"
    found = {
        name: list(squad.read(folder / f"{name}.json")) for name in ("squad_v1_1190", "squad_v2_half_dev", "xquad.zh")
    }
    assert {name: len(questions) for name, questions in found.items()} == {
        "squad_v1_1190": 1190,
        "squad_v2_half_dev": 6078,
        "xquad.zh": 1190,
    }
    assert not any(one.impossible for one in found["squad_v1_1190"]) and any(
        one.impossible for one in found["squad_v2_half_dev"]
    )
    for questions in found.values():
        for one in questions:
            assert all(one.context[start : start + len(text)] == text for text, start in one.answers), one.where
    both = found["squad_v1_1190"] + found["squad_v2_half_dev"]
    kept = squad.distinct(both)
    assert len({one.title for one in both}) == 48 and 6078 < len(kept) < len(both)

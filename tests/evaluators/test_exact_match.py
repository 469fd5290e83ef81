"""Exact match and F1 by hand, and against the public port of the official script of version 2.0."""

import random

import pytest

from ctxjax.config import ConfigError
from ctxjax.data.tasks.squad import Answer, Question
from ctxjax.evaluators import exact_match


def question(name, *answers):
    texts = tuple(Answer(text, 0) for text in answers)
    return Question(name, "", "?", "", texts, not answers, f"line {name}")


@pytest.mark.parametrize(
    ("told", "answers", "first", "second"),
    [
        ("The  Cat!", ("cat",), (1, 1), (1, 1)),  # articles, punctuation, case and blanks
        ("an apple", ("the apple", "pear"), (1, 1), (1, 1)),
        ("theatre", ("atre",), (0, 0), (0, 0)),  # an article is a whole word
        ("a-cat", ("acat",), (1, 1), (1, 1)),  # punctuation goes first, and joins
        ("in the year 1895", ("1895",), (0, 0.5), (0, 0.5)),  # 1 of 3 words, 1 of 1
        ("to be or not to be", ("to be to",), (0, 2 / 3), (0, 2 / 3)),  # repeated words count as often as in both
        ("red blue", ("blue green", "red"), (0, 2 / 3), (0, 2 / 3)),  # the best answer
        ("x", ("y", "x y"), (0, 2 / 3), (0, 2 / 3)),
        ("", ("cat",), (0, 0), (0, 0)),
        ("the", ("a",), (1, 0), (1, 1)),  # nothing is left of either
        ("the", ("a", "cat"), (1, 0), (0, 0)),  # 2.0 leaves out an answer of nothing
        ("", ("...", "!"), (1, 0), (1, 1)),
        ("“quoted”", ("quoted",), (0, 0), (0, 0)),  # of punctuation only what ASCII has
        ("naïve Café", ("naive cafe",), (0, 0), (0, 0)),  # accents stay
    ],
)
def test_by_hand(told, answers, first, second):
    assert exact_match.score(told, answers, "1.1") == pytest.approx(first)
    assert exact_match.score(told, answers, "2.0") == pytest.approx(second)


def test_where_there_is_no_answer_to_tell_none_is_right():
    assert exact_match.score("", (), "2.0") == (1.0, 1.0)
    assert exact_match.score("the", (), "2.0") == (1.0, 1.0)  # nothing is left of it
    assert exact_match.score("cat", (), "2.0") == (0.0, 0.0)


@pytest.mark.parametrize(
    ("told", "answer", "expected"),
    [
        ("136次", "136 次", (1, 1)),
        ("黑豹队", "黑豹", (0, 0.8)),
        ("《战国无双3》。", "战国无双3", (1, 1)),  # punctuation of any script
        ("NFL 球队", "nfl的球队", (0, 6 / 7)),
    ],
)
def test_chinese_is_compared_by_ideographs(told, answer, expected):
    assert exact_match.score(told, (answer,), "1.1", "zh") == pytest.approx(expected)


def test_means_of_parts():
    questions = [question("1", "cat"), question("2", "red"), question("3")]
    found = exact_match.scores(questions, {"1": "a cat", "2": "red dog", "3": "x"}, "2.0")
    assert exact_match.means(questions, found, "2.0") == pytest.approx(
        {
            "exact_match": 100 / 3,
            "f1": 500 / 9,
            "has_answer_exact_match": 50.0,
            "has_answer_f1": 250 / 3,
            "no_answer_exact_match": 0.0,
            "no_answer_f1": 0.0,
        }
    )
    assert set(exact_match.means(questions[:2], found)) == {"exact_match", "f1"}


def test_best_threshold_by_hand():
    """With everything below 0.5 answered two of three are right, and the first wrong one is told as none."""
    questions = [question("1", "cat"), question("2", "red"), question("3")]
    told, odds = {"1": "cat", "2": "red", "3": "x"}, {"1": -2.0, "2": 0.5, "3": 3.0}
    found = {"1": 1.0, "2": 1.0, "3": 0.0}
    assert exact_match.best_threshold(questions, found, told, odds) == (100.0, 0.5)
    assert exact_match.best_threshold(questions, found, told, odds | {"3": -3.0}) == pytest.approx((200 / 3, 0.5))
    assert exact_match.best_threshold(questions[2:], found, told, odds) == (100.0, 0.0)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"1": "x"}, "1 predictions for 2 questions: '2' has no answer"),
        ({"1": "x", "2": "y", "3": "z"}, "3 predictions for 2 questions: '3' answers a question that is not there"),
        ({"1": "x", "2": "y"}, "line 2: no answer to compare with, which is for version=2.0"),
    ],
)
def test_predictions_and_questions_have_to_be_the_same(told, message):
    with pytest.raises(ConfigError, match=message):
        exact_match.scores([question("1", "cat"), question("2")], told)


WORDS = "the a an cat cat's Cat, red - ... 1895 (1895) theatre The “x” café , naïve".split()


def drawn(draw):
    return " ".join(draw.choices(WORDS, k=draw.randint(0, 4)))


def test_against_the_official_script():
    """400 random questions: each score, all means, and the best thresholds, with odds that are often equal."""
    official = pytest.importorskip("transformers.data.metrics.squad_metrics")
    draw, some = random.Random(0), range(400)
    questions = [question(str(n), *(drawn(draw) for _ in range(draw.choice((0, 1, 1, 3))))) for n in some]
    told = {str(n): drawn(draw) for n in some}
    for n in some:
        if questions[n].answers and draw.random() < 0.3:
            told[str(n)] = draw.choice(questions[n].answers).text.upper()
    odds = {str(n): float(draw.randint(-5, 5)) for n in some}

    class Asked:  # what the script reads of a question
        def __init__(self, one):
            self.qas_id, self.answers = one.id, [{"text": answer.text} for answer in one.answers]

    expected = official.squad_evaluate([Asked(one) for one in questions], told, odds, 100.0)
    found = exact_match.scores(questions, told, "2.0")
    means = exact_match.means(questions, found, "2.0")
    names = {"exact": "exact_match", "f1": "f1"} | {
        f"{theirs}_{short}": f"{ours}_{long}"
        for theirs, ours in (("HasAns", "has_answer"), ("NoAns", "no_answer"))
        for short, long in (("exact", "exact_match"), ("f1", "f1"))
    }
    assert {ours: expected[theirs] for theirs, ours in names.items()} == pytest.approx(means, abs=1e-9)
    for column, (theirs, ours) in enumerate((("exact", "exact_match"), ("f1", "f1"))):
        values = {name: one[column] for name, one in found.items()}
        best = exact_match.best_threshold(questions, values, told, odds)
        assert best == pytest.approx((expected[f"best_{theirs}"], expected[f"best_{theirs}_thresh"])), ours

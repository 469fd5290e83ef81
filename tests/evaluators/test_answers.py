"""From scores to texts: projection by hand and against the public port, spans against loops, on random scores."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from ctxjax import config as configs
from ctxjax.data.generated_questions import generated_questions
from ctxjax.data.sources import questions
from ctxjax.evaluators import answers
from ctxjax.evaluators.squad import Evaluator
from tests.evaluators import squad_oracle as oracle

SIZES = {"length": 40, "stride": 10, "max_query": 8}


@pytest.mark.parametrize(
    ("told", "original", "expected"),
    [
        ("steve smith", "Steve Smith's", "Steve Smith"),
        ("1895", "(1895-1943).", "1895"),
        ("1895 - 1943", "(1895-1943).", "1895-1943"),
        ("cafe", "the Café,", "Café"),  # accents are stripped one for one
        ("u . s .", "U.S. Army", "U.S."),
        ("smith", "Steve Smyth's", "Steve Smyth's"),  # not found: all of it
        ("10", "10\u200b km", "10\u200b km"),  # letters were deleted: all of it
        ("x", "x", "x"),
        ("", "x", "x"),
        ("b", "b ab b", "b"),  # the first one found
    ],
)
def test_projection(told, original, expected):
    assert answers.project(told, original, lowercase=True) == expected


def test_projection_of_cased_words_keeps_accents():
    assert answers.project("Café", "Café,", lowercase=False) == "Café"
    assert answers.project("Cafe", "Café,", lowercase=False) == "Café,"


def test_projection_against_the_public_port():
    official = pytest.importorskip("transformers.data.metrics.squad_metrics")
    draw = random.Random(0)
    letters = "aAéÉb1 (-)'.,  \u00a0\u200b文ßİﬁ"
    hits = 0
    for _ in range(3000):
        original = " ".join("".join(draw.choices(letters, k=draw.randint(1, 12))).split()) or "x"
        tokens = answers._basic(original, True).split()
        first = draw.randint(0, max(0, len(tokens) - 1))
        told = " ".join(tokens[first : first + draw.randint(1, 3)]) or "q"
        told = told[draw.randint(0, 1) :].strip() or "q"  # pieces may be parts of basic tokens
        found = answers.project(told, original, lowercase=True)
        assert found == official.get_final_text(told, original, True)
        hits += found != original
    assert hits > 500


def source_of(version):
    """The windows of 12 questions; whatever looks at every span of theirs takes its time."""
    files = {"heldout": (f"dev-v{version}.json",)}
    found = questions.Source(generated_questions(), "heldout", version=version, **files, **SIZES)
    last = int(np.searchsorted(found.windows[:, 0], 12))
    found.__dict__["_index"] = found._index | {"windows": found.windows[:last]}
    found.questions = found.questions[:12]
    return found


def evaluator_of(source, **fields):
    """An evaluator without a model, which tells from scores that are given."""
    from ctxjax import run as runs

    config = configs.load("experiments/taglm/tag.py:smoke")
    mesh = runs.make_mesh(config, __import__("jax").devices()[:1])
    given = {"model": None, "objective": None, "mesh": mesh, "train_batch_size": 8}
    return Evaluator(open_source=lambda split: source, **given, **fields)


@pytest.mark.parametrize("version", ["1.1", "2.0"])
@pytest.mark.parametrize("fields", [{"n_best": 5, "max_answer": 4}, {"n_best": 12, "max_answer": 30}])
def test_texts_of_random_scores(version, fields):
    """Few different scores, so that many are equal; of some questions every score is of padding or of [CLS]."""
    source, draw = source_of(version), np.random.default_rng(0)
    scores = draw.integers(-3, 4, (len(source.windows), SIZES["length"], 2)).astype(np.float32)
    scores[::5, 1:] = -9.0
    scores[::5, -1] = scores[::5, 0] = 7.0
    told = dict(evaluator_of(source, **fields)._tell(scores))
    at, texts = 0, set()
    for one in source.questions:
        rows = oracle.rows(one, source.tokenizer, **SIZES, training=False)
        here, at = scores[at : at + len(rows)], at + len(rows)
        text, best, odds = oracle.tell(
            rows, here, version, *fields.values(), lambda *text: answers.project(*text, True)
        )
        assert (told[one.id].text, told[one.id].odds) == (text, pytest.approx(odds))
        assert told[one.id].best == [(text, start, end) for text, _, start, end in best]
        assert told[one.id].probabilities() == pytest.approx([share for _, share, _, _ in best])
        texts.add(text)
    assert at == len(source.windows) and len(texts) > 5


def test_where_nothing_is_valid():
    scores = np.zeros((6, 2), np.float32)
    window = answers.Window(scores, 0, 3, np.zeros(2, bool))
    context = answers.Context("a b", ["a", "b"], np.array([0, 1]), ["a", "b"], np.array([[0, 1], [2, 3]], np.int32))
    assert answers.tell([window], context, "1.1") == ("empty", [("empty", 0.0, 0.0)], 0.0)
    assert answers.tell([window], context, "2.0") == ("empty", [("", 0.0, 0.0)], 0.0)
    assert answers.tell([], context, "1.1").text == "empty"


def test_the_end_need_not_be_in_the_window_that_sees_most():
    scores = np.zeros((8, 2), np.float32)
    scores[4, 0] = scores[6, 1] = 5.0
    most = np.array([True, True, False, False])
    window = answers.Window(scores, 10, 3, most)
    assert answers.best_spans([window])[0] == (11, 13, 5.0, 5.0)
    assert answers.best_spans([window._replace(most=~most)])[0] != (11, 13, 5.0, 5.0)


def test_letters_of_the_pieces_themselves():
    text = "Costs 5\u00a0km, (and) more."
    offsets = np.array([[0, 5], [6, 7], [8, 10], [10, 11], [12, 13], [13, 16], [16, 17], [18, 22]], np.int32)
    pieces = "costs 5 km , ( [UNK] ) more".split()
    context = answers.Context(text, text.split(" "), np.array([0, 1, 1, 1, 2, 2, 2, 3]), pieces, offsets)
    assert context.text_of(1, 2, True, "offsets") == "5\u00a0km"
    assert context.text_of(5, 5, True, "offsets") == "and"
    assert context.text_of(5, 5, True, "alignment") == "(and)"  # an unknown piece is not found


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_against_the_public_port(version):
    official = pytest.importorskip("transformers.data.metrics.squad_metrics")
    source, draw = source_of(version), np.random.default_rng(1)
    scores = draw.integers(-30, 31, (len(source.windows), SIZES["length"], 2)).astype(np.float32) / 8
    scores[np.isin(source.windows[:, 0] % 3, 1), 0] = 4.5  # no answer is likely in every third
    evaluator = evaluator_of(source, threshold=1.0)
    told = dict(evaluator._tell(scores))
    examples, features, results = [], [], []
    for number, one in enumerate(source.questions):
        rows = oracle.rows(one, source.tokenizer, **SIZES, training=False)
        examples.append(SimpleNamespace(qas_id=one.id, doc_tokens=rows[0].words))
        for row in rows:
            name = len(features)
            about = {"tokens": row.tokens, "token_to_orig_map": row.word_at, "token_is_max_context": row.most_at}
            features.append(SimpleNamespace(example_index=number, unique_id=name, **about))
            starts, ends = (scores[name, :, column].tolist() for column in (0, 1))
            results.append(SimpleNamespace(unique_id=name, start_logits=starts, end_logits=ends))
    joined = SimpleNamespace(
        convert_tokens_to_string=lambda tokens: " ".join(tokens).replace(" ##", "").replace("##", "")
    )
    files = {"output_prediction_file": None, "output_nbest_file": None, "output_null_log_odds_file": None}
    sizes = {"n_best_size": 20, "max_answer_length": 30, "do_lower_case": True, "verbose_logging": False}
    options = {"version_2_with_negative": version == "2.0", "null_score_diff_threshold": 1.0, "tokenizer": joined}
    expected = official.compute_predictions_logits(examples, features, results, **files, **sizes, **options)
    assert evaluator.predictions(told) == dict(expected)
    assert version == "1.1" or 0 < list(expected.values()).count("") < len(expected)

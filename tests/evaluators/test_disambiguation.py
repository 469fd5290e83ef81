"""The nearest sense: by hand on a handful of sentences, with answers missing, several right, and of another WordNet."""

import json
import types

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.senses import read_senses, read_supersenses
from ctxjax.evaluators.disambiguation import Evaluator


def sentence(*tokens, doc="a"):
    """Tokens of word, or (word, lemma, *senses)."""
    made = []
    for token in tokens:
        word, lemma, *senses = (token, token) if isinstance(token, str) else token
        values = [["WordNet-eng30", sense] for sense in senses]
        made.append([word, lemma, "NN", [["WordNet-eng30", "1"], *values] if senses else []])
    return json.dumps({"doc": doc, "sent": "1", "tokens": made}) + "\n"


MONEY, SHORE = "1:14:00::", "1:17:01::"
SEMCOR = (
    sentence("the", ("banks", "bank", MONEY, "eng30-1-n"), "lent")
    + sentence("a", ("bank", "bank", MONEY, "eng30-1-n"), "paid")
    + sentence("wet", ("bank", "bank", SHORE, "eng30-2-n"), "there", doc="b")
    + sentence(("river_bank", "riverbank", SHORE, "eng30-3-n"), ("ran", "run", "2:38:00::", "eng30-4-v"), doc="b")
)
TEST = (
    sentence("money", ("bank", "bank", MONEY))  # answered rightly by its key
    + sentence("muddy", ("bank", "bank", "1:99:00::", "eng30-2-n"))  # by its synset, the key being of another WordNet
    + sentence("money", ("bank", "bank", f"{SHORE};1:98:00::"))  # wrongly
    + sentence("money", ("loan", "loan", "1:21:00::"))  # a lemma that SemCor has not
    + sentence("money", ("bank", "bank", "NOANSWER"))  # left out
)


class Model:
    """Layer 0 is the same for every word; layer 1 is (1, 0) where the sentence is about money and (0, 1) elsewhere."""

    path = "model"

    def stream(self, texts):
        for words in texts:
            wet = any(word in ("wet", "muddy", "river") for word in words)
            rows = np.array([[[1.0, 1.0]] * len(words), [[0.1, 1.0] if wet else [1.0, 0.1]] * len(words)], np.float32)
            yield types.SimpleNamespace(layers=rows)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "semcor.jsonl").write_text(SEMCOR)
    (tmp_path / "senseval2.jsonl").write_text(TEST)
    return str(tmp_path / "semcor.jsonl"), (str(tmp_path / "senseval2.jsonl"),)


def test_by_hand(files):
    found = Evaluator(*files).run(Model())
    # Four instances, three answered; layer 0 has the more frequent sense for all, layer 1 knows the muddy one.
    assert found["senseval2_f1_0"] == pytest.approx(2 * 1 / (3 + 4))
    assert found["senseval2_f1"] == found["senseval2_f1_1"] == pytest.approx(2 * 2 / (3 + 4))
    assert (found["senseval2_precision"], found["senseval2_recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 4))
    assert found["senseval2_most_frequent_sense"] == pytest.approx(2 * 1 / (3 + 4)) and found["best_layer"] == 1
    counts = {name: found[f"senseval2_{name}"] for name in ("instances", "unknown", "without_sense")}
    assert counts == {"instances": 4, "unknown": 1, "without_sense": 1}


def test_a_dictionary_answers_what_was_not_taught(files, tmp_path):
    index = tmp_path / "index.sense"
    index.write_text("loan%1:10:00:: 06289979 2 0\nloan%1:21:00:: 13398953 1 11\nrun%2:38:00:: 01926311 1 106\n")
    found = Evaluator(*files, first_senses=str(index)).run(Model())
    assert found["senseval2_recall"] == pytest.approx(3 / 4) == found["senseval2_precision"] == found["senseval2_f1"]
    index.write_text("loan 1 2 3\n")
    with pytest.raises(ConfigError, match="line 1: expected lemma%key"):
        Evaluator(*files, first_senses=str(index))


def test_units_are_read_as_their_words(files):
    last = list(read_senses(files[0]))[-1]
    assert last.words == ("river", "bank", "ran") and last.document == 1
    assert [(one.first, one.last, one.part) for one in last.instances] == [(0, 2, "n"), (2, 3, "v")]
    assert [one.tags for one in read_supersenses(files[0])][2:] == [("", "n.17", ""), ("", "", "v.38")]


def test_mistakes_are_named(files, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text(SEMCOR + '{"doc": 1}\n')
    with pytest.raises(ConfigError, match=r"broken\.jsonl, line 5: expected JSON with tokens"):
        Evaluator(str(broken), files[1])
    broken.write_text(sentence("no", "sense"))
    with pytest.raises(ConfigError, match="have no word with a sense"):
        Evaluator(files[0], (str(broken),))
    with pytest.raises(ConfigError, match=r"broken\.jsonl has none of the lemmas"):
        Evaluator(str(broken), files[1])

"""Windows round tagged sentences: every word told once, at its first piece, with its own document around it."""

import itertools

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import generated
from ctxjax.data.sources.tagged_pieces import Source

TEXT = """-DOCSTART- O

bade I-LOC
ba O
fi O

ku I-PER
me B-PER
nipo O
. O

-DOCSTART- O

sateviwo I-LOC
zu O
zu O
ka I-LOC
la O
zu O
me O
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tagged")
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (place / name).write_text(TEXT.replace("B-PER", "I-PER"))
    generated.make_tokenizer("wordpiece").save(place / "tokenizer")
    return place


def source(folder, **fields):
    return Source(folder, tokenizer=str(folder / "tokenizer"), **fields)


def told(made):
    """The tags of every sentence as rows tell them, after checks of every row."""
    rows = made.take(np.arange(len(made.owners)))
    found = [[] for _ in made.sentences]
    tokens, mask = rows["inputs"]["tokens"], rows["inputs"]["mask"]
    for row, owner in enumerate(made.owners):
        here = np.flatnonzero(rows["weights"][row])
        words = made.sentences[owner].words[len(found[owner]) : len(found[owner]) + len(here)]
        firsts = [made.tokenizer.encode_words([word]).ids[0] for word in words]
        assert tokens[row, here].tolist() == firsts and mask[row, here].all()
        assert (tokens[row, 0], tokens[row, mask[row].sum() - 1]) == (made.tokenizer.cls_id, made.tokenizer.sep_id)
        assert not rows["targets"][row][rows["weights"][row] == 0].any()
        found[owner] += [made.labels[tag] for tag in rows["targets"][row, here].tolist()]
    return found


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("length", [10, 11, 16, 64])
def test_every_word_once_whatever_the_windows(folder, length, context):
    made = source(folder, length=length, context=context)
    assert told(made) == [list(one.tags) for one in made.sentences]
    assert (len(made.owners) > len(made.sentences)) == (length < 16)
    assert made.fingerprint["further_parts_of_long_sentences"] == len(made.owners) - len(made.sentences)


def test_the_document_stands_round_a_sentence_and_no_other(folder):
    made = source(folder, length=64)
    rows = made.take(np.arange(3))["inputs"]
    pieces = [[made.tokenizer.pieces[n] for n in row[there]] for row, there in zip(rows["tokens"], rows["mask"])]
    both = [piece for one in made.sentences[:2] for piece in made.tokenizer.encode_words(one.words).pieces]
    assert pieces[0] == pieces[1] == ["[CLS]", *both, "[SEP]"]
    assert pieces[2] == ["[CLS]", *made.tokenizer.encode_words(made.sentences[2].words).pieces, "[SEP]"]
    alone = source(folder, length=64, context=False).take(np.arange(2))["inputs"]
    assert (rows["mask"][:2].sum(1) > alone["mask"].sum(1)).all()


def test_a_full_window_has_the_sentence_in_its_middle():
    folder = generated.generated_tags()
    generated.make_tokenizer("wordpiece").save(f"{folder}/wordpiece")
    made = Source(folder, tokenizer=f"{folder}/wordpiece", length=64)
    sides = [(one.start - one.left, one.right - one.stop) for one in made._told]
    assert {one.right - one.left for one in made._told} == {62}
    inner = [pair for one, pair in zip(made._told, sides) if one.left > 0 and one.right < made._pieces[1][-1]]
    assert len(inner) > 300 and all(abs(left - right) <= 1 for left, right in inner)


def test_a_pass_has_every_row_once(folder):
    made = source(folder, length=10)
    count = len(made.owners)
    rows = made.batch(3, 4, np.arange(2 * count))["inputs"]["tokens"]
    passes = [sorted(row.tobytes() for row in part) for part in (rows[:count], rows[count:])]
    assert passes[0] == passes[1] == sorted(row.tobytes() for row in made.take(np.arange(count))["inputs"]["tokens"])
    for one, two in itertools.pairwise(made.owners):
        assert two - one in (0, 1)


def test_parts_of_files_and_tags_that_break_their_scheme(folder):
    made = source(folder, train="eng.train[:2]", heldout="eng.testa[50%:]", length=64)
    assert len(made.sentences) == 2 and made.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert len(source(folder, split="heldout", heldout="eng.testa[34%:]", length=64).sentences) == 2
    with pytest.raises(ConfigError, match=r"config\.source\.train='eng.train\[7:\]' has none of the 3 sentences"):
        _ = source(folder, train="eng.train[7:]", length=64).sentences
    (folder / "broken").write_text("a I-LOC\nb I-LOC\nc B-LOC\n")
    made = source(folder, train="broken", read="any", length=64)
    assert made.sentences[0].tags == ("B-LOC", "I-LOC", "B-LOC")
    with pytest.raises(ConfigError, match="broken, line 1: 'I-LOC' does not stand at the beginning"):
        _ = source(folder, train="broken", read="BIO", length=64).sentences


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer": ""}, r"config\.source\.tokenizer is empty; name the pretrained run"),
        ({"length": 4}, r"config\.source\.length=4 has no room"),
        ({"length": 7}, r"line 14: a word of 4 pieces is longer than half a row of config\.source\.length=7"),
        ({"framing": "gpt"}, r"config\.source\.framing='gpt' needs the pieces <start>"),
    ],
)
def test_mistakes_are_named(folder, fields, message):
    with pytest.raises(ConfigError, match=message):
        _ = Source(folder, **{"tokenizer": str(folder / "tokenizer"), **fields}).owners

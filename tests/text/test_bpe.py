"""GPT's BPE: equal to the published algorithm and to Hugging Face's on random text, offsets, files, learning."""

import itertools
import json
import pickle
import subprocess
import sys
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ctxjax.config import ConfigError
from ctxjax.text import bpe, byte_bpe, open_tokenizer
from tests.text import oracle

SAMPLE = [
    "The unable words don't, they're; I'll say “we’ve” 12,345.67 times: naïve café, NAÏVE CAFÉ!",
    "the them there then… unthen… 中文字 word。中文 the，able中s the\tthe \n the ababab abab aaaa aaa",
]
BPE = bpe.learn(SAMPLE * 3, 170)
CASED = bpe.learn(SAMPLE * 3, 170, lowercase=False)
AS_THEY_ARE = [bpe.BPE(one.pieces, one.merges, one.lowercase, standardize=False) for one in (BPE, CASED)]
SPECIAL = ("<start>", "<delimiter>", "<classify>")


def basic_tokens(text, lowercase):
    """With the signs that text_utils.py and ftfy replace."""
    for signs, sign in (("ʼ‘’‚‛´", "'"), ("“”„‟", '"'), ("–—―", "-")):
        for odd in signs:
            text = text.replace(odd, sign)
    return [token.replace("…", "...") for token in oracle.basic_tokens(text, lowercase)]


def published(text, tokenizer):
    """text_utils.py: all places of the pair that was learned first, until no pair was learned."""
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    pieces = []
    for token in (basic_tokens if tokenizer.standardize else oracle.basic_tokens)(text, tokenizer.lowercase):
        parts = [*token[:-1], token[-1] + "</w>"]
        while pairs := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
            left, right = min(pairs, key=ranks.__getitem__)
            merged, i = [], 0
            while i < len(parts):
                both = parts[i : i + 2] == [left, right]
                merged.append(left + right if both else parts[i])
                i += 1 + both
            parts = merged
        pieces += [part if part in tokenizer.ids else "<unk>" for part in parts]
    return pieces


def theirs(tokenizer):
    """As transformers builds OpenAIGPTTokenizer."""
    made = Tokenizer(
        models.BPE(
            tokenizer.ids, tokenizer.merges, unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix=""
        )
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=tokenizer.lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


THEIRS = {tokenizer.lowercase: theirs(tokenizer) for tokenizer in AS_THEY_ARE}
ODD = (
    "aAzéÉ ΣσßİK'’´“—.,-$…。中文豈あ한 \t\n\r\x00\x01\x0b\x1c\x7f\x85\xa0\xad½²Ⅷ٣\u0301\u0903\u1680\u180e"
    "\u2003\u200b\u2028\u202f\u3000\ufeff\ufffd\ue000\U0001f600\U0001f468\u200d\U00020000"
)
COMMON = "don't we've theunable 12 '' ababab</w> <unk>\n\n"
anything = st.one_of(
    st.sampled_from(ODD), st.characters(exclude_categories=["Cs", "Cn"]), st.sampled_from([*COMMON, "the", "able"])
)
texts = st.lists(anything, max_size=60).map("".join)


def is_old(char):
    """The same in every version of Unicode, since their table is older; not private, which they drop; no sigma, which
    they do not read as the end of a word."""
    category = unicodedata.category(char)
    return category == unicodedata.ucd_3_2_0.category(char) and category not in ("Cn", "Co") and char != "Σ"


old_texts = st.lists(anything.filter(lambda part: all(map(is_old, part))), max_size=60).map("".join)


@settings(max_examples=300)
@given(text=texts)
@example("ababab aaaa the</w> <unk> \n</w> İΣ\u0301 a\u0301\u0323中")
def test_equals_the_published_algorithm(text):
    for tokenizer in (BPE, CASED, *AS_THEY_ARE):
        expected = published(text, tokenizer)
        assert tokenizer.encode(text).pieces == expected
        assert [tokenizer.pieces[i] for i in tokenizer.encode_sentences([text]).ids] == expected


@settings(max_examples=300)
@given(text=old_texts)
def test_equals_hugging_face(text):
    for tokenizer in AS_THEY_ARE:
        assert tokenizer.encode(text).ids.tolist() == THEIRS[tokenizer.lowercase].encode(text).ids


@settings(max_examples=200)
@given(text=texts)
def test_offsets_are_of_the_given_characters(text):
    for tokenizer in (BPE, AS_THEY_ARE[1]):
        encoding, spans = tokenizer.encode(text), tokenizer.split_words(text)
        starts, ends = encoding.offsets[:, 0], encoding.offsets[:, 1]
        assert (starts < ends).all() and (np.diff(encoding.words) >= 0).all()
        assert {*encoding.words.tolist()} == set(range(len(spans)))
        for piece, word, start, end in zip(encoding.pieces, encoding.words.tolist(), starts, ends):
            assert spans[word][0] <= start and end <= spans[word][1]
            if (
                not tokenizer.standardize
                and piece != "<unk>"
                and end - start == len(bare := piece.removesuffix("</w>"))
            ):
                assert text[start:end] == bare


@settings(max_examples=100)
@given(parts=st.lists(texts, max_size=6))
def test_sentences_are_encoded_one_by_one(parts):
    together = BPE.encode_sentences(parts)
    apart = [BPE.encode(part).ids for part in parts]
    assert together.lengths.tolist() == [len(ids) for ids in apart]
    assert together.ids.tolist() == [i for ids in apart for i in ids.tolist()]
    assert together.unknown == [] and together.long_words == 0 and BPE.end_id not in together.ids


def test_pieces_and_words():
    encoding = BPE.encode("  The then,\nQ中the ")
    assert encoding.pieces == ["the</w>", "then</w>", ",</w>", "<unk>", "中</w>", "the</w>"]
    assert encoding.offsets.tolist() == [[2, 5], [6, 10], [10, 11], [12, 13], [13, 14], [14, 17]]
    assert encoding.words.tolist() == [0, 1, 2, 3, 4, 5] and BPE.unk_id == 0
    assert BPE.decode(encoding.ids) == "the then , <unk> 中 the"
    words = BPE.encode_words(["Then", "\x00", "don't"])
    assert words.words.tolist()[:2] == [0, 1] and words.ids[1] == BPE.unk_id and {*words.words.tolist()} == {0, 1, 2}
    assert BPE.decode(BPE.encode(SAMPLE[0]).ids) == " ".join(basic_tokens(SAMPLE[0], True))
    for encoded in (BPE.encode("a\ud800b").ids, BPE.encode_sentences(["a\ud800b"]).ids):
        assert [BPE.pieces[i] for i in encoded] == ["a", "<unk>", "b</w>"]


def test_an_unknown_character_is_one_piece_and_its_neighbours_are_kept():
    word = "the☃then"
    assert BPE.encode(word).pieces == published(word, BPE) and BPE.encode(word).pieces.count("<unk>") == 1
    assert BPE.encode("☃☃").offsets.tolist() == [[0, 1], [1, 2]]


def test_signs_are_made_plain_in_their_places():
    encoding, straight = BPE.encode("“don’t—the"), BPE.encode("\"don't-the")
    assert encoding.ids.tolist() == straight.ids.tolist() and (encoding.offsets == straight.offsets).all()
    dots = BPE.encode("the… then")
    assert dots.pieces == ["the</w>", *published("…", BPE), "then</w>"] and "<unk>" not in dots.pieces
    assert {*map(tuple, dots.offsets[1:-1].tolist())} == {(3, 4)} and dots.offsets[-1].tolist() == [5, 9]


def test_long_words_are_exact():
    word = "then" * 2000
    assert BPE.encode(word).ids.tolist() == BPE.encode_sentences([word]).ids.tolist()
    assert BPE.decode(BPE.encode(word).ids) == word


def test_special_pieces_are_rows_behind_the_vocabulary(tmp_path):
    grown = bpe.BPE(BPE.pieces, BPE.merges, special=SPECIAL)
    assert grown.pieces == [*BPE.pieces, *SPECIAL] and grown.end_id == BPE.end_id
    text = "<start>the <classify>"
    assert grown.encode(text).ids.tolist() == BPE.encode(text).ids.tolist()
    encoding = grown.encode(text, special=True)
    assert encoding.pieces == ["<start>", "the</w>", "<classify>"] and encoding.words.tolist() == [0, 1, 2]
    assert (
        encoding.offsets.tolist() == [[0, 7], [7, 10], [11, 21]]
        and grown.decode(encoding.ids) == "<start> the <classify>"
    )
    grown.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.digest() == grown.digest() != BPE.digest() and again.pieces == grown.pieces
    BPE.save(tmp_path / "plain")
    assert open_tokenizer(tmp_path / "plain", special=SPECIAL).digest() == grown.digest()


def test_what_stands_between_texts_comes_from_none():
    assert BPE.pieces[BPE.end_id] == "\n</w>" and BPE.end_id == len(BPE) - 1
    for text in ("\n", "\n</w>", "a\n</w>b"):
        assert BPE.end_id not in BPE.encode(text).ids
    assert BPE.decode([BPE.ids["the</w>"], BPE.end_id, BPE.ids["the</w>"]]) == "the \nthe"


def write(folder, pieces=None, merges=None, names=("vocab.json", "merges.txt")):
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(json.dumps({piece: i for i, piece in enumerate(pieces or BPE.pieces)}))
    lines = [f"{left} {right}" for left, right in (BPE.merges if merges is None else merges)]
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    return folder


def test_opens_published_files_and_its_own(tmp_path):
    found = open_tokenizer(write(tmp_path / "hf"))
    assert found.kind == "bpe" and not found.keeps_space and found.digest() == BPE.digest()
    official = write(tmp_path / "openai", names=("encoder_bpe_40000.json", "vocab_40000.bpe"))
    assert open_tokenizer(official).digest() == open_tokenizer(official / "encoder_bpe_40000.json").digest()
    assert open_tokenizer(official).digest() == BPE.digest()
    moved = [*reversed(BPE.pieces)]
    kept = open_tokenizer(write(tmp_path / "moved", moved))
    assert kept.pieces == moved and kept.end_id == 0 and kept.encode("The").pieces == ["the</w>"]
    bytes_of = byte_bpe.learn(SAMPLE, 300)
    assert open_tokenizer(write(tmp_path / "bytes", bytes_of.pieces, bytes_of.merges)).kind == "byte_bpe"

    CASED.save(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"vocab.json", "merges.txt", "tokenizer.json"}
    again = open_tokenizer(tmp_path / "saved")
    assert again.digest() == CASED.digest() and again.options() == {
        "lowercase": False,
        "special": [],
        "standardize": True,
    }
    sent = pickle.loads(pickle.dumps(CASED))
    assert (
        sent.digest() == CASED.digest() and sent.encode(SAMPLE[0]).ids.tolist() == CASED.encode(SAMPLE[0]).ids.tolist()
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pieces": BPE.pieces[:-1]}, r"vocab.json: the BPE vocabulary lacks '\\n</w>'"),
        ({"pieces": BPE.pieces[1:-1]}, r"lacks '<unk>' and '\\n</w>'"),
        ({"merges": [("q", "z")]}, "vocab.json: the merge of 'q' and 'z' has no piece 'q'"),
    ],
)
def test_what_is_no_vocabulary_is_named(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        open_tokenizer(write(tmp_path, **change))
    with pytest.raises(ConfigError, match="1 pieces twice"):
        bpe.BPE([*BPE.pieces, "the</w>"], BPE.merges)


LEARN = """
import random
from ctxjax.text.bpe import learn
rng = random.Random(0)
words = ["".join(rng.choices("abcdefghijéßж中", k=rng.randint(2, 9))) for _ in range(3000)]
print(learn([" ".join(rng.choices(words, k=200)) for _ in range(60)], 900).digest())
"""


def test_learning_twice_gives_one_digest():
    """In fresh processes, since it is their hash seeds that differ; many ties, since ties are what they decide."""
    digests = {
        subprocess.run([sys.executable, "-c", LEARN], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def learned_plainly(texts, size):
    """The most frequent pair, of equal ones that with the lowest ids, until there is no pair that occurs twice."""
    tokens = [token for text in texts for token in basic_tokens(text, True)]
    count = {char: sum(token.count(char) for token in tokens) for token in tokens for char in token}
    chars = sorted(count, key=lambda char: (-count[char], char))[: min(size - 2, 1000) // 2]
    words = [[*token[:-1], token[-1] + "</w>"] for token in tokens if {*token} <= {*chars}]
    pieces, merges = ["<unk>", *chars, *(char + "</w>" for char in chars)], []
    while len(pieces) < size - 1:
        pairs = {}
        for word in words:
            for pair in itertools.pairwise(word):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs or max(pairs.values()) < 2:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pieces.index(pair[0]), pieces.index(pair[1])))
        merges.append((left, right))
        if left + right not in pieces:
            pieces.append(left + right)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == (left, right):
                    word[i : i + 2] = [left + right]
                i += 1
    return [*pieces, "\n</w>"], merges


@pytest.mark.parametrize("size", [4, 20, 120, 170])
def test_learned_merges_are_the_most_frequent_pairs(size):
    learned = bpe.learn(SAMPLE * 3, size)
    assert (learned.pieces, learned.merges) == learned_plainly(SAMPLE * 3, size)


def test_learning_what_cannot_be_learned():
    assert len(bpe.learn(["ab"], 300)) == 6  # nothing stands there twice
    assert bpe.learn(["a\ud800 ab"] * 9, 300).encode("ab").pieces == ["ab</w>"]
    with pytest.raises(ConfigError, match="3 pieces has no room for characters"):
        bpe.learn(["the"], 3)
    with pytest.raises(ConfigError, match="no word"):
        bpe.learn([" "], 300)


@pytest.mark.real_data
def test_the_published_vocabulary(data_root, tmp_path):
    gpt = open_tokenizer(data_root / "vocab" / "gpt1")
    assert gpt.kind == "bpe" and len(gpt) == 40478 and len(gpt.merges) == 40000
    assert (gpt.unk_id, gpt.end_id, gpt.pieces[1]) == (0, 40477, ".")
    assert gpt.pieces[477:40477] == [left + right for left, right in gpt.merges]  # the order that learning keeps
    as_it_is = open_tokenizer(data_root / "vocab" / "gpt1", standardize=False)
    for text in SAMPLE:
        assert gpt.encode(text).pieces == published(text, gpt)
        assert as_it_is.encode(text).ids.tolist() == theirs(gpt).encode(text).ids
    assert gpt.encode("“Don’t—” … ´s").pieces == gpt.encode('"don\'t-"').pieces + ["...</w>", "'</w>", "s</w>"]
    gpt.save(tmp_path)
    assert open_tokenizer(tmp_path).digest() == gpt.digest()

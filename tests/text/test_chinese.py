"""Chinese from text to a model: sentences, characters as words, the published vocabulary of 21,128 pieces."""

import csv
import json
import os
import pathlib

import numpy as np
import pytest

import ctxjax
from ctxjax import prepare, train
from ctxjax.data.corpus import Corpus
from ctxjax.text import open_tokenizer, sentences, words
from ctxjax.text.wordpiece import SPECIALS, WordPiece

TEXT = "我在银行存钱。他坐在河岸上！你用iPhone 15打电话吗？"


def test_sentences_end_at_chinese_marks():
    found = [TEXT[start:end] for start, end in sentences.split_sentences(TEXT)]
    assert found == ["我在银行存钱。", "他坐在河岸上！", "你用iPhone 15打电话吗？"]


def test_every_ideograph_is_a_word_and_latin_words_stay_whole():
    learned = words.learn([TEXT] * 2, 100)
    assert (
        learned.decode(learned.encode(TEXT).ids)
        == "我 在 银 行 存 钱 。 他 坐 在 河 岸 上 ！ 你 用 iPhone 15 打 电 话 吗 ？"
    )
    pieces = WordPiece([*SPECIALS, *"我在银行存钱。他坐河岸上！你用打电话吗？", "iphone", "15"])
    found = pieces.encode(TEXT)
    assert pieces.unk_id not in found.ids and len(found.ids) == 23
    assert TEXT[found.offsets[15][0] : found.offsets[15][1]] == "用"
    assert [TEXT[a:b] for a, b in found.offsets[16:18]] == ["iPhone", "15"]


@pytest.mark.real_data
def test_reviews_with_the_published_vocabulary(tmp_path):
    data = pathlib.Path(os.environ["CTXJAX_DATA"])
    with open(data / "tasks/zh/ChnSentiCorp_htl_all.csv", encoding="utf-8-sig", newline="") as file:
        reviews = [row["review"] for row in csv.DictReader(file)]
    lines = [json.dumps({"text": review}, ensure_ascii=False) for review in reviews]
    (tmp_path / "reviews.jsonl").write_text("\n".join(lines), encoding="utf-8")
    vocabulary = data / "vocab/bert_chinese_vocab.txt"
    assert len(open_tokenizer(vocabulary)) == 21_128
    for name, flags in (
        ("pieces", ["--vocab", str(vocabulary)]),
        ("words", "--tokenizer words --vocab_size 8000".split()),
    ):
        prepare.main(["--input", str(tmp_path / "reviews.jsonl"), "--output", str(tmp_path / name), *flags])
        corpus = Corpus(tmp_path / name)
        tokens, _ = corpus.read_tokens(0, corpus.num_tokens)
        assert np.mean(tokens == corpus.tokenizer.unk_id) < 0.005
        assert corpus.num_sentences > 1.5 * corpus.num_documents
    argv = f"--config experiments/ngram/count.py:size=trigram --workdir {tmp_path}/run".split()
    assert train.main([*argv, f"--config.source.corpus={tmp_path}/words"]) == 0
    model = ctxjax.load(tmp_path / "run")
    assert json.loads((tmp_path / "run/record.json").read_text())["evaluation"]["heldout/lm_perplexity"] < 60
    fluent, scrambled = model.score(["房间很大，环境不错。", "错间大很，境房不环。"])
    assert fluent > scrambled + 10

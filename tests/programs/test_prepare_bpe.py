"""`python -m ctxjax.prepare --tokenizer bpe`: corpora of GPT's pieces, learned or given, and the rows made of them."""

import json

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import corpus
from ctxjax.data.generated import documents
from ctxjax.data.sources import blocks
from ctxjax.prepare import main
from ctxjax.text import bpe, open_tokenizer

OPTIONS = ["--heldout", "0.1", "--workers", "1"]
TEXTS = [" ".join(sentences).capitalize() for sentences in documents(40)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def run(source, folder, *more):
    main(["--input", str(source), "--output", str(folder), *OPTIONS, *more])
    return corpus.Corpus(folder, "train")


def test_a_learned_vocabulary_and_its_rows(source, tmp_path):
    found = run(source, tmp_path, "--tokenizer", "bpe", "--vocab_size", "300")
    tokenizer = found.tokenizer
    assert tokenizer.kind == "bpe" and len(tokenizer) == 300 and tokenizer.lowercase
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == {"vocab.json", "merges.txt", "tokenizer.json"}
    assert corpus.read_manifest(tmp_path)["settings"]["lowercase"] is True
    written = {text.lower() for text in TEXTS}
    rows = blocks.Source(tmp_path, length=16)
    step = [rows.batch(0, 1, np.array([element])) for element in range(rows.blocks)]
    seen = sum((one["inputs"]["tokens"] == tokenizer.end_id).sum() for one in step)
    assert rows.tokenizer.end_id == 299 and abs(seen - found.num_documents) <= 1
    bounds = found.sentence_tokens[found.document_sentences]
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        assert tokenizer.decode(found.read_tokens(start, stop)[0]) in written


def test_a_given_vocabulary(source, tmp_path):
    made = bpe.learn(TEXTS[:10], 120)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "encoder_bpe_40000.json").write_text(json.dumps(made.ids))
    (theirs / "vocab_40000.bpe").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in made.merges))
    first = run(source, tmp_path / "a", "--vocab", str(theirs), "--tokenizer", "bpe")
    second = run(source, tmp_path / "b", "--vocab", str(tmp_path / "a" / "tokenizer"))
    assert first.fingerprint == second.fingerprint and first.tokenizer.digest() == made.digest()
    assert open_tokenizer(theirs).digest() == made.digest()
    with pytest.raises(ConfigError, match="is of kind bpe, not byte_bpe"):
        run(source, tmp_path / "d", "--vocab", str(theirs), "--tokenizer", "byte_bpe")

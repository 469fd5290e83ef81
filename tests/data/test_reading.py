"""Raw inputs to documents: files found, formats told apart, pieces cut at document boundaries, bad text counted."""

import bz2
import gzip
import importlib
import json
import lzma

import hypothesis.strategies as st
import pytest
import zstandard
from hypothesis import example, given, settings

from ctxjax.config import ConfigError
from ctxjax.data import cleaning, piecework, reading, tfds_text
from tests.data.stores import stored

COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
LINES = [json.dumps({"text": f"Document {i}. " + "Ein Wort é中. " * (i % 7)}) for i in range(300)]


def texts(inputs, counts=None, field="text"):
    """Every document of some inputs, and the pieces that they came in."""
    counts = {} if counts is None else counts
    pieces = list(reading.read_pieces(inputs, counts))
    found = [
        d.text for piece in pieces for chunk in piece.chunks for d in piecework.documents(chunk, field, counts, set())
    ]
    return found, pieces


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_or_not(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(reading, "PIECE_BYTES", 2000)
    monkeypatch.setattr(reading, "_BLOCK", 1000)
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(COMPRESS[ending](("\n".join(LINES) + "\n").encode()))
    inputs = reading.describe(reading.find_files([str(path)]), "auto")
    found, pieces = texts(inputs)
    assert found == [json.loads(line)["text"].strip() for line in LINES]
    assert len(pieces) > 3 and [p.number for p in pieces] == list(range(len(pieces)))
    assert [p.read for p in pieces] == sorted(p.read for p in pieces) and pieces[-1].read == path.stat().st_size


@pytest.mark.parametrize("ending", [e for e in COMPRESS if e])
@pytest.mark.parametrize("harm", ["cut", "other"])
def test_broken_archives_are_named(tmp_path, ending, harm):
    path = tmp_path / f"a.jsonl{ending}"
    whole = COMPRESS[ending]("\n".join(LINES).encode())
    path.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"this is no archive")
    with pytest.raises(ConfigError, match=rf"a\.jsonl\{ending} is truncated or corrupt"):
        texts(reading.describe([path], "jsonl"))


def test_files_are_found_once_and_in_order(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/.hidden", ".git/x.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = reading.find_files([str(tmp_path), str(tmp_path / "*.txt"), str(tmp_path / "b.txt")])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.txt", "a/z.txt", "b.txt"]
    (tmp_path / "empty").mkdir()
    for wrong, what in (("nothing", "does not exist"), ("empty", "holds no file"), ("*.gz", "holds no file")):
        with pytest.raises(ConfigError, match=what):
            reading.find_files([str(tmp_path / wrong)])


SENTENCES = "The cat sat.\nIt was warm.\n\nA dog came.\nIt barked!\nNobody cared.\n\nThe end came.\nIt was late.\n"
PROSE = "A heading\n\nThe cat sat. It was warm. It slept.\n\nA dog came. It barked!\n"


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.jsonl", "not json at all", "jsonl"),
        ("a.json", '{"text": "x"}', "jsonl"),
        ("a.ndjson.gz", '{"text": "x"}', "jsonl"),
        ("a", '\ufeff{"text": "x"}\n', "jsonl"),
        ("a", '{"text": "' + "x" * 100_000 + '"}', "jsonl"),
        ("a", "{curly} words.", "documents"),
        ("a.txt", SENTENCES, "sentences"),
        ("a.txt", SENTENCES.replace("\n", "\r\n"), "sentences"),
        ("a.txt", PROSE, "documents"),
        ("a.txt", "The cat sat.\nIt was warm.\n", "documents"),
        ("a.txt", "", "documents"),
    ],
)
def test_formats_are_told_apart(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    assert reading.describe([path], "auto")[0].format == expected
    assert reading.describe([path], "sentences")[0].format == "sentences"


def test_sentences_keep_their_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(SENTENCES)
    pieces = list(reading.read_pieces(reading.describe([path], "sentences"), {}))
    documents = [d.lines for chunk in pieces[0].chunks for d in piecework.documents(chunk, "text", {}, set())]
    assert documents == [block.split("\n") for block in SENTENCES.strip().split("\n\n")]


@settings(max_examples=150, deadline=None)
@given(
    content=st.text(st.sampled_from("ab é中\n\n\r."), max_size=400).map(str.encode),
    format=st.sampled_from(["jsonl", "sentences", "documents"]),
    piece=st.integers(8, 64),
)
@example("aaaaaaaaaaé中中 ".encode(), "documents", 9)  # the blank at its end is no place to cut
def test_cuts_lose_nothing(tmp_path_factory, content, format, piece):
    path = tmp_path_factory.mktemp("cuts") / "a.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("PIECE_BYTES", piece), ("DOCUMENT_BYTES", 2 * piece), ("LINE_BYTES", 4096), ("_BLOCK", 16)):
            patch.setattr(reading, name, size)
        counts = {}
        inputs = reading.describe([path], format)
        chunks = [chunk.data for piece in reading.read_pieces(inputs, counts) for chunk in piece.chunks]
    assert b"".join(chunks) == content
    for chunk in chunks:
        chunk.decode()  # no character is cut in two
    if format == "jsonl":
        assert all(chunk.endswith(b"\n") for chunk in chunks[:-1])
    cuts = counts.get(cleaning.CUT_DOCUMENTS, 0)
    if format == "documents":
        assert cuts == max(0, len(chunks) - 1)
    if format == "sentences" and not cuts:
        whole = list(cleaning.line_documents(cleaning.clean(content.decode(), {})))
        assert [d for c in chunks for d in cleaning.line_documents(cleaning.clean(c.decode(), {}))] == whole


def test_a_line_over_the_limit_is_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LINE_BYTES", 1 << 16)
    monkeypatch.setattr(reading, "PIECE_BYTES", 1 << 14)
    monkeypatch.setattr(reading, "_BLOCK", 1 << 12)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*LINES[:9], json.dumps({"text": "x" * 200_000}), *LINES[9:]]))
    counts = {}
    found, _ = texts(reading.describe([path], "jsonl"), counts)
    assert len(found) == len(LINES) and counts == {cleaning.LONG_LINES: 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be-bom"])
def test_other_unicode_encodings(tmp_path, encoding):
    text = "Ein Wort é中😀.\nZweite Zeile."
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-bom" else text.encode(encoding)
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    counts = {}
    assert texts(reading.describe([path], "auto"), counts)[0] == [text]
    assert counts == ({cleaning.BOMS: 1} if encoding == "utf-8-sig" else {})


def test_repairs_are_counted():
    counts = {}
    text = cleaning.decode(b"a\xffb\xc3(c \xef\xbf\xbd", counts)
    assert text == "a\ufffdb\ufffd(c \ufffd" and counts == {cleaning.BAD_UTF8: 2}
    counts = {}
    assert (
        cleaning.clean(" \ufeffa\x00\x00b\x07c\x0cd\x85e\r\nf\rg\ud800h\u2028i\n", counts)
        == "abc\nd\ne\nf\ng\ufffdh\ni"
    )
    assert counts == {
        cleaning.BOMS: 1,
        cleaning.NULS: 2,
        cleaning.CONTROLS: 1,
        cleaning.BREAKS: 3,
        cleaning.SURROGATES: 1,
    }


def test_json_lines_that_are_of_no_use_are_counted():
    lines = [
        '{"text": "good"}',
        "",
        "{broken",
        "[1]",
        '{"body": "x"}',
        '{"text": 3}',
        '{"text": ["a", "b"]}',
        "[" * 9999,
    ]
    counts, seen = {}, set()
    found = list(cleaning.json_documents("\n".join(lines).encode(), "text", counts, seen))
    assert found == ["good", "a\nb"] and seen == {"body"}
    assert counts == {cleaning.BAD_JSON: 3, cleaning.NO_FIELD: 1, cleaning.NOT_TEXT: 1}


@given(text=st.text(st.sampled_from("ab \n"), max_size=200), limit=st.integers(2, 50))
def test_parts_hold_everything_but_blanks(text, limit):
    counts = {}
    parts = list(cleaning.parts(text, limit, counts))
    assert "".join(parts).split() == "".join(parts).split() and "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= limit for part in parts)


BUILDER = """
import numpy as np
import tensorflow_datasets as tfds


class CtxjaxLocalText(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"body": tfds.features.Text(), "id": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(50), "test": self._generate_examples(5)}

    def _generate_examples(self, count=0):
        for i in range(count):
            yield i, {"body": f"Text number {i} é.", "id": i}


class CtxjaxNeedsPackage(CtxjaxLocalText):
    def _generate_examples(self, count=0):
        import ctxjax_is_not_a_package

        yield 0, {"body": "", "id": 0}


class CtxjaxFarText(CtxjaxLocalText):
    def _split_generators(self, dl_manager):
        raise ConnectionError("no route to host\\nand a long story")
"""


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """Where datasets are, and not yet prepared; their builders are in a module as a user would write it."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    (folder / "ctxjax_local_text.py").write_text(BUILDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
        importlib.import_module("ctxjax_local_text")
        yield folder


def test_tfds_is_prepared_and_read_without_tensorflow(tfds_folder, capfd):
    import sys

    item = tfds_text.describe("tfds:ctxjax_local_text", "body")
    assert "TFDS prepares it under" in capfd.readouterr().err
    assert item == tfds_text.describe("tfds:ctxjax_local_text", "body") and not capfd.readouterr().err
    assert item.size == 50 and item.format == "texts"
    pieces = list(tfds_text.read_pieces(item, "body", 3, {}))
    found = [d.text for chunk in pieces[0].chunks for d in piecework.documents(chunk, "body", {}, set())]
    assert sorted(found) == sorted(f"Text number {i} é." for i in range(50))
    assert pieces[0].number == 3 and pieces[0].read == 50
    assert tfds_text.describe("tfds:ctxjax_local_text:test", "body").size == 5
    assert tfds_text.describe("tfds:ctxjax_local_text:train[:20%]", "body").size == 10
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "name, message",
    [
        ("tfds:ctxjax_local_tex", r"knows no dataset 'ctxjax_local_tex'; did you mean 'ctxjax_local_text'\?"),
        ("tfds:ctxjax_local_text:dev", "no split 'dev'"),
        (
            "tfds:ctxjax_needs_package",
            r"package ctxjax_is_not_a_package; .*'ctxjax\[tf\]' ctxjax_is_not",
        ),
        ("tfds:ctxjax_far_text", r"failed \(ConnectionError: no route to host\); .*pip install 'ctxjax\[tf\]'"),
        ("tfds:hf:squad", "a collection outside TFDS"),
        ("tfds:../../etc", "cannot be opened|knows no dataset"),
    ],
)
def test_tfds_mistakes_are_one_short_sentence(tfds_folder, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        tfds_text.describe(name, "body")
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_tfds_fields_are_named(tfds_folder):
    with pytest.raises(ConfigError, match="no field 'text'; --field is one of body, id"):
        tfds_text.describe("tfds:ctxjax_local_text", "text")


def test_object_stores_are_read_like_folders(monkeypatch):
    store = stored(monkeypatch)
    store.pipe("s3://bucket/texts/a.jsonl", b'{"text": "One."}\n')
    store.pipe("s3://bucket/texts/more/b.jsonl.gz", gzip.compress(b'{"text": "Two."}\n'))
    store.pipe("s3://bucket/texts/.hidden/c.jsonl", b"no")
    found = reading.describe(reading.find_files(["s3://bucket/texts", "s3://bucket/texts/*.jsonl"]), "auto")
    assert [item.path for item in found] == ["s3://bucket/texts/a.jsonl", "s3://bucket/texts/more/b.jsonl.gz"]
    assert found[0].size == 17 and found[0].digest == reading.xxhash.xxh3_128(b'{"text": "One."}\n').hexdigest()
    (piece,) = reading.read_pieces(found, {})
    assert [chunk.data for chunk in piece.chunks] == [b'{"text": "One."}\n', b'{"text": "Two."}\n']
    for name in ("s3://bucket/nothing", "s3://bucket/texts/*.txt"):
        with pytest.raises(ConfigError, match=r"does not exist|holds no file"):
            reading.find_files([name])

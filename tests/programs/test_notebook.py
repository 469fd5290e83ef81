"""The notebook is what its builder writes, and runs from top to bottom on any two runs of ours."""

import pathlib

import numpy as np
import pytest

from ctxjax import convert
from ctxjax.interop import files
from ctxjax.text.wordpiece import SPECIALS, WordPiece
from ctxjax.text.words import Words
from tests.interop import making
from tests.scripts import opened

ROOT = pathlib.Path(__file__).parents[2]


def builder():
    return opened(ROOT / "experiments" / "notebooks" / "build.py")


def test_the_notebook_holds_the_builders_cells():
    nbformat = pytest.importorskip("nbformat")
    written = nbformat.read(ROOT / "experiments" / "notebooks" / "context.ipynb", as_version=4)
    built = builder().build()
    assert [(cell.cell_type, cell.source) for cell in written.cells] == [(c.cell_type, c.source) for c in built.cells]
    outputs = [out for cell in written.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]


def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("nbformat")
    pyplot.switch_backend("Agg")
    bert, bilm = making.bert(), making.bilm()
    letters = "abcdefghijklmnopqrstuvwxyz."
    more = [piece for piece in [*letters, *(f"##{c}" for c in letters)] if piece not in bert.tokenizer.ids]
    pieces = [*bert.tokenizer.pieces, *more]
    assert pieces[: len(SPECIALS)] == list(SPECIALS)
    rng = np.random.default_rng(0)
    grown = {
        "embed/tokens/embedding": rng.standard_normal((len(pieces), 16)).astype(np.float32),
        "head/mlm/bias": np.zeros(len(pieces), np.float32),
        "embed/positions/embedding": rng.standard_normal((80, 16)).astype(np.float32),
    }
    config = bert.config | {"vocab_size": len(pieces), "max_len": 80}
    bert = files.Published(config, bert.params | grown, WordPiece(pieces))
    convert.write_run(tmp_path / "bert", bert, {}, "made here")
    convert.write_run(tmp_path / "elmo", bilm._replace(tokenizer=Words(making.VOCABULARY, lowercase=True)), {}, "here")
    monkeypatch.setenv("CTXJAX_DEMO", str(tmp_path))
    monkeypatch.setattr(pyplot, "show", pyplot.close)
    names = {}
    for cell in builder().build().cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
    assert names["vectors"]["BERT"].shape == (3, 10, 16) and names["vectors"]["ELMo"].shape == (3, 10, 12)
    printed = capsys.readouterr().out
    assert "BERT layer 2" in printed and "ELMo layer 0" in printed and "nats a token" in printed

"""Every example of docs/pretrained.md, run one after another as a reader would, on small models."""

import pathlib
import re
import shlex

import pytest

from ctxjax import convert, embed
from tests.interop import making

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "pretrained.md"
PROGRAMS = {"ctxjax.embed": embed.main, "ctxjax.convert": convert.main}


@pytest.mark.filterwarnings("ignore:.*read in overlapping windows")
def test_every_example_runs(tmp_path, monkeypatch, capsys):
    convert.write_run(tmp_path / "demo" / "bert", making.bert(), {}, "made here")
    convert.write_run(tmp_path / "demo" / "elmo", making.bilm(), {}, "made here")
    (tmp_path / "vectors.txt").write_text("3 2\nriver 1 0\nbank 0.5 0.5\nmoney 0 1\n")
    (tmp_path / "text.txt").write_text("the cat sat on a mat .\nmoney\n")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.S)
    assert {language for language, _ in blocks} == {"python", "bash"} and len(blocks) >= 7
    names = {}
    for language, source in blocks:
        if language == "python":
            exec(compile(source, str(PAGE), "exec"), names)
            continue
        for line in source.strip().splitlines():
            python, dash, module, *arguments = shlex.split(line)
            assert (python, dash) == ("python", "-m")
            PROGRAMS[module](arguments)
    printed = capsys.readouterr().out
    assert "wrote 2 lines of 8 words to features.hdf5" in printed and "left out" in printed

"""Pages that name files name files that exist, and commands that exist."""

import pathlib
import re

import pytest

from ctxjax.__main__ import PROGRAMS

PAGES = ["docs/adding.md", "docs/bench.md", "docs/experiments.md", "docs/papers.md", "docs/tpu_gpu.md"]


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    text = pathlib.Path(page).read_text()
    named = set(re.findall(r"\b((?:ctxjax|experiments|docs|tests|launch)/[\w/]+\.(?:py|sh|md))", text))
    assert named
    assert not {name for name in named if "NAME" not in name and not pathlib.Path(name).exists()}


@pytest.mark.parametrize("page", PAGES)
def test_named_programs_and_functions_exist(page):
    text = pathlib.Path(page).read_text()
    assert set(re.findall(r"python -m ctxjax\.(\w+)", text)) <= set(PROGRAMS)
    for function, file in re.findall(r"`(\w+)` in `(ctxjax/[\w/]+\.py)`", text):
        assert re.search(rf"^def {function}\(", pathlib.Path(file).read_text(), re.MULTILINE), (function, file)

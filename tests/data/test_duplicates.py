"""Equal and nearly equal documents: who is found, who stays, and the same whatever the pieces."""

import json
import random

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import corpus, duplicates, preparation, reading
from ctxjax.prepare import main
from tests.programs.test_prepare import files

WORDS = [f"w{number}" for number in range(2000)]


def edited(words, number, rng):
    """A document in which so many words are others."""
    words = list(words)
    for place in rng.sample(range(len(words)), number):
        words[place] = "other"
    return words


def jaccard(one, two):
    runs = [
        {tuple(words[i : i + duplicates.RUN]) for i in range(len(words) - duplicates.RUN + 1)} for words in (one, two)
    ]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """40 documents, ten of them with a near copy, five with two equal ones."""
    pytest.importorskip("datasketch")
    rng = random.Random(4)
    base = [rng.choices(WORDS, k=150) for _ in range(40)]
    made = base + [edited(words, 1, rng) for words in base[:10]] + 2 * base[20:25]
    rng.shuffle(made)
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": " ".join(words)}) + "\n" for words in made))
    return folder / "a.jsonl"


def run(source, folder, *more):
    options = ["--vocab_size", "200", "--heldout", "0.1", "--workers", "1", *more]
    return main(["--input", str(source), "--output", str(folder), *options])


def test_near_ones_are_found_as_often_as_the_bands_promise():
    pytest.importorskip("datasketch")
    rng = random.Random(0)
    for changes in (1, 5, 12):
        found, promised = [], []
        for _ in range(60):
            one = rng.choices(WORDS, k=200)
            two = edited(one, changes, rng)
            found.append((duplicates.bands(" ".join(one)) == duplicates.bands(" ".join(two))).any())
            promised.append(1 - (1 - jaccard(one, two) ** duplicates.ROWS) ** duplicates.BANDS)
        assert abs(np.mean(found) - np.mean(promised)) < 0.16  # 2.5 deviations of a share of 60


def test_case_and_punctuation_do_not_matter_and_short_texts_are_whole():
    pytest.importorskip("datasketch")
    assert (duplicates.bands("One, two; three!") == duplicates.bands("one two three")).all()
    assert not (duplicates.bands("one two three") == duplicates.bands("one two four")).any()
    assert (duplicates.bands("") == duplicates.bands("...")).all()


def test_who_has_an_earlier_one_goes(tmp_path):
    """Against all pairs compared one by one, with equal keys and bands spread over files."""
    rng = np.random.default_rng(0)
    keys = rng.choice(500, 300).astype(np.uint64)
    bands = rng.integers(0, 400, (300, duplicates.BANDS)).astype(np.uint64)
    rows = np.concatenate([keys[:, None], bands], axis=1)
    paths = []
    for number, part in enumerate(np.array_split(rows, 3)):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], part)
    expected = {
        int(one[0]) for one in rows for two in rows if two[0] < one[0] and (one[1:] == two[1:]).any()
    }  # fmt: skip
    assert duplicates.later(paths).tolist() == sorted(expected) and 0 < len(expected) < 300
    np.save(paths[0], rows[:0])
    assert duplicates.later(paths[:1]).tolist() == []


def test_left_out_counted_and_the_same_whatever_the_pieces(texts, tmp_path, monkeypatch):
    run(texts, tmp_path / "keep")
    run(texts, tmp_path / "exact", "--duplicates", "exact")
    run(texts, tmp_path / "near", "--duplicates", "near")
    found = {name: corpus.read_manifest(tmp_path / name) for name in ("keep", "exact", "near")}
    number = {name: sum(s["documents"] for s in about["splits"].values()) for name, about in found.items()}
    assert number == {"keep": 60, "exact": 50, "near": 40}
    assert (
        found["keep"]["repaired"] == {"duplicate documents kept": 10} and "duplicates" not in found["keep"]["settings"]
    )
    assert found["exact"]["dropped"] == {"duplicate documents": 10}
    assert found["near"]["dropped"] == {"duplicate documents": 10, "near-duplicate documents": 10}
    monkeypatch.setattr(reading, "PIECE_BYTES", 3_000)
    monkeypatch.setattr(reading, "_BLOCK", 500)
    run(texts, tmp_path / "pieces", "--duplicates", "near")
    assert files(tmp_path / "pieces") == files(tmp_path / "near")
    with pytest.raises(ConfigError, match="--duplicates near, not exact"):
        run(texts, tmp_path / "near", "--duplicates", "exact")
    with pytest.raises(ConfigError, match="--duplicates all is none of keep, exact, near"):
        preparation.Settings(input=("x",), output="y", duplicates="all")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_beam_leaves_out_the_same(texts, tmp_path):
    pytest.importorskip("apache_beam")
    run(texts, tmp_path / "local", "--duplicates", "near")
    run(texts, tmp_path / "beam", "--duplicates", "near", "--runner", "DirectRunner")
    assert files(tmp_path / "beam") == files(tmp_path / "local")

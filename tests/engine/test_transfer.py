"""init_from: parts of another run, a grown vocabulary, slots kept or fresh, and refusals by name."""

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, loop, transfer
from ctxjax.config import ConfigError, override
from tests.engine import outside

PIECES = 23


def make(corpus, **settings):
    config = outside.get_config(f"corpus={corpus}").lock()
    fixed = {"total": "4 steps", "eval_every": "100 steps"}
    override(config, fixed | {name.replace("__", "."): str(value) for name, value in settings.items()})
    return config


def run(config, workdir, **more):
    return loop.train(config, workdir, devices=jax.devices()[:1], **more)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def origin(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("origin")
    run(make(corpus), workdir)
    return workdir


@pytest.fixture
def start(corpus, tmp_path, monkeypatch):
    """`start(**settings)`: the state before the first step, by path name, and what was said."""

    def begin(corpus=corpus, **settings):
        config = make(corpus, **settings)
        trainer = loop.Trainer(config, tmp_path / "new", devices=jax.devices()[:1])
        try:
            state = trainer.start_state()
        finally:
            trainer.log.close()
        log = (tmp_path / "new" / "train.log").read_text()
        return {name: np.asarray(leaf) for name, leaf in checkpoint.tree.flatten(state).items()}, log

    return begin


def params(arrays):
    return {name: array for name, array in arrays.items() if name.startswith("params/")}


def test_all_parameters_and_fresh_slots(origin, start):
    theirs = checkpoint.read(origin)[0]
    ours, log = start(init_from__path=origin)
    for name, array in params(theirs).items():
        np.testing.assert_array_equal(ours[name], array)
    for name, array in ours.items():
        if name.startswith(("opt_state", "carry", "step")):
            assert not array.any(), f"{name} is not fresh"
    assert "0 parameters stay fresh" in log and "from step 4" in log


def test_slots_kept_when_asked(origin, start):
    theirs = checkpoint.read(origin)[0]
    ours, _ = start(init_from__path=origin, init_from__optimizer=True)
    for name, array in theirs.items():
        if name.startswith(("params", "opt_state")):
            np.testing.assert_array_equal(ours[name], array)
    assert ours["step"] == 0 and any(name.endswith("count") and array == 4 for name, array in ours.items())


def test_parts_by_pattern(origin, start):
    theirs = checkpoint.read(origin)[0]
    fresh, _ = start()
    ours, log = start(init_from__path=origin, init_from__pattern="^(embed|layer_)")
    for name in params(ours):
        same = name.startswith(("params/embed", "params/layer_"))
        np.testing.assert_array_equal(ours[name], (theirs if same else fresh)[name])
    assert "2 parameters stay fresh (params/bias, params/softmax/embedding)" in log


def test_a_grown_and_shuffled_vocabulary_is_matched_by_piece(origin, start, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ctxjax.text.open_tokenizer", lambda folder: outside.Tokenizer((folder / "vocab.txt").read_text().split())
    )
    grown = tmp_path / "grown"
    outside.write_corpus(grown)
    pieces = [f"n{number}" for number in range(PIECES)]
    new = ["new0", *reversed(pieces[:20]), "new1", *pieces[21:]]  # n20 is gone, two are new
    (grown / "vocab.txt").write_text("\n".join(new) + "\n")
    theirs = checkpoint.read(origin)[0]
    settings = {"corpus": str(grown), "model__vocab_size": len(new)}
    fresh, _ = start(**settings)
    ours, log = start(**settings, init_from__path=origin, init_from__optimizer=True)
    assert len(new) == 24
    mu = next(name for name in theirs if "/mu/" in name and name.endswith("softmax/embedding"))
    for name in ("params/embed/embedding", "params/softmax/embedding", "params/bias", mu):
        for row, piece in enumerate(new):
            want = theirs[name][pieces.index(piece)] if piece in pieces else fresh[name][row]
            np.testing.assert_array_equal(ours[name][row], want)
    np.testing.assert_array_equal(ours["params/layer_0/kernel"], theirs["params/layer_0/kernel"])
    assert "22 of 24 pieces were known there" in log


def test_new_pieces_start_at_the_mean_row_when_asked(origin, start, tmp_path, monkeypatch):
    """NumPy oracle: known rows copied, the others the mean of all old rows, tables and biases alike; slots fresh."""
    monkeypatch.setattr(
        "ctxjax.text.open_tokenizer", lambda folder: outside.Tokenizer((folder / "vocab.txt").read_text().split())
    )
    target = tmp_path / "target"
    outside.write_corpus(target)
    pieces = [f"n{number}" for number in range(PIECES)]
    new = ["new0", *pieces[5:], "new1", "new2"]
    (target / "vocab.txt").write_text("\n".join(new) + "\n")
    theirs = checkpoint.read(origin)[0]
    settings = {"corpus": str(target), "model__vocab_size": len(new), "init_from__path": origin}
    ours, log = start(**settings, init_from__fresh_rows="mean", init_from__optimizer=True)
    for name in ("params/embed/embedding", "params/softmax/embedding", "params/bias"):
        old = theirs[name].astype(np.float64)
        want = np.stack([old[pieces.index(piece)] if piece in pieces else old.mean(0) for piece in new])
        np.testing.assert_allclose(ours[name], want, rtol=1e-6, atol=1e-8)
    mu = next(name for name in theirs if "/mu/" in name and name.endswith("softmax/embedding"))
    assert not ours[mu][0].any() and ours[mu][1:].any()
    assert "18 of 21 pieces were known there, the other 3 start at the mean row" in log
    with pytest.raises(ConfigError, match="fresh_rows='median' is neither 'random' nor 'mean'"):
        start(**settings, init_from__fresh_rows="median")


def test_what_does_not_fit_is_refused_by_name(origin, start, corpus, tmp_path):
    with pytest.raises(
        ConfigError, match=r"params/embed/embedding is float32\[23, 16\] in .* and float32\[23, 8\] here"
    ):
        start(init_from__path=origin, model__width=8)
    # Left out by the pattern, the rest still does not fit; nothing at all is an error too.
    with pytest.raises(ConfigError, match="params/layer_0/kernel"):
        start(init_from__path=origin, model__width=8, init_from__pattern="layer_0/kernel")
    ours, _ = start(init_from__path=origin, model__width=8, init_from__pattern="^bias")
    np.testing.assert_array_equal(ours["params/bias"], checkpoint.read(origin)[0]["params/bias"])
    with pytest.raises(ConfigError, match=r"pattern='nothing' matches no parameter"):
        start(init_from__path=origin, init_from__pattern="nothing")
    with pytest.raises(ConfigError, match="holds no complete checkpoint"):
        start(init_from__path=tmp_path)


def test_a_damaged_origin_is_refused_by_name(corpus, tmp_path):
    run(make(corpus), tmp_path / "origin")
    path = tmp_path / "origin" / "checkpoints" / "00000004" / "meta.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ConfigError, match=r"is damaged: .*meta\.json has \d+ bytes where"):
        run(make(corpus, init_from__path=tmp_path / "origin"), tmp_path / "new")


def test_a_resume_does_not_start_over_from_the_origin(origin, corpus, tmp_path):
    config = make(corpus, init_from__path=origin)
    run(config, tmp_path, stop_at=2)
    before = checkpoint.read(tmp_path)[0]
    run(make(corpus, init_from__path="/moved/away"), tmp_path, stop_at=3)
    assert checkpoint.read(tmp_path, step=3)[0]["step"] == 3 and before["step"] == 2
    assert "took" not in (tmp_path / "train.log").read_text().split("continuing")[1]


def test_slots_are_told_by_their_path():
    params = {"params/layer_0/kernel"}
    assert transfer._slot_of("opt_state/1/0/mu/layer_0/kernel", params)
    assert not transfer._slot_of("opt_state/1/0/mu/layer_0/bias", params)
    assert transfer._slot_of("opt_state/1/0/count", params)


def test_gpts_three_new_pieces_are_found_missing_and_all_others_kept(tmp_path):
    """The pieces that fine-tuning adds stand behind the old ones, so every old row keeps its place."""
    from ctxjax.data.generated import make_tokenizer
    from ctxjax.data.transforms.framing import open_framed

    old = make_tokenizer("bpe")
    old.save(tmp_path)
    new = open_framed(tmp_path, "gpt")
    assert len(new) == len(old) + 3
    new_rows, old_rows = transfer._rows_by_piece(old, new)
    assert new_rows.tolist() == old_rows.tolist() == list(range(len(old)))

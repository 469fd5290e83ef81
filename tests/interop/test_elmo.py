"""ELMo's published layout: against a NumPy oracle on a generated file, and against real weights and their vectors."""

import json

import h5py
import numpy as np
import pytest

import ctxjax
from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.interop import elmo, files
from ctxjax.text import characters
from tests.interop import elmo_oracle

OPTIONS = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 6,
        "cell_clip": 0.3,
        "proj_clip": 0.2,
        "dim": 10,
        "n_layers": 3,
    },
    "char_cnn": {
        "activation": "tanh",
        "filters": [[1, 3], [2, 5], [4, 7]],
        "n_highway": 2,
        "embedding": {"dim": 4},
        "n_characters": 262,
        "max_characters_per_token": 12,
    },
}  # fmt: skip
SENTENCES = [["The", "cat", "sat", "."], ["Ωmega", "extraordinarilylongword"], ["a"], [], list("bcdefg")]


def arrays_for(options, seed=0):
    """Random arrays, large enough that both clips bite."""
    rng = np.random.default_rng(seed)
    config = elmo.read_config(options, "options.json")
    shapes = elmo.shapes(config) | {"char_embed": (261, options["char_cnn"]["embedding"]["dim"])}
    return {name: (0.7 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def write_file(folder, options=OPTIONS, arrays=None):
    arrays = arrays_for(options) if arrays is None else arrays
    folder.mkdir(exist_ok=True)
    (folder / "options.json").write_text(json.dumps(options))
    with h5py.File(folder / "lm_weights.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return arrays


def changed(section, **values):
    return OPTIONS | {section: OPTIONS[section] | values}


def expected(stored, options, stateful):
    state, found = None, []
    for words in SENTENCES:
        chars = characters.table(["<S>", *words, "</S>"], options["char_cnn"]["max_characters_per_token"])
        values, after = elmo_oracle.run(stored, options, chars, state)
        state = after if stateful else None
        found.append(values)
    return found


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        changed("lstm", use_skip_connections=False, cell_clip=None, proj_clip=None, n_layers=1),
        changed("char_cnn", activation="relu", n_highway=0),
    ],
    ids=["clips", "plain", "relu"],
)
def test_a_generated_file_gives_the_oracles_vectors(tmp_path, options, stateful):
    stored = write_file(tmp_path, options)
    model = ctxjax.load(tmp_path)
    found = model.embed(SENTENCES, align="piece", stateful=stateful)
    for words, have, want in zip(SENTENCES, found, expected(stored, options, stateful), strict=True):
        assert have.words == ["<S>", *words, "</S>"]
        assert have.layers.shape == want.shape
        assert np.abs(have.layers - want).max() < 1e-6 * max(1.0, np.abs(want).max())
    by_word = model.embed(SENTENCES, stateful=stateful)
    assert all(np.array_equal(a.layers, b.layers[:, 1:-1]) for a, b in zip(by_word, found))


def test_state_matters_and_starts_from_zero(tmp_path):
    write_file(tmp_path)
    model = ctxjax.load(tmp_path)
    alone, again, carried = (model.embed([["x", "y"], ["z"]], stateful=s) for s in (False, False, True))
    assert np.array_equal(alone[1].layers, again[1].layers)
    assert np.array_equal(carried[0].layers, model.embed([["x", "y"]], stateful=True)[0].layers)
    assert np.abs(alone[1].layers[1:] - carried[1].layers[1:]).max() > 1e-3
    assert np.array_equal(alone[1].layers[0], carried[1].layers[0])  # the token layer knows no context


def test_the_token_layer_stands_twice_side_by_side(tmp_path):
    write_file(tmp_path)
    tokens = ctxjax.load(tmp_path).embed([["x", "yy"]])[0].layers[0]
    assert tokens.shape == (2, 12) and np.array_equal(tokens[:, :6], tokens[:, 6:])


def test_there_and_back_bit_by_bit(tmp_path):
    stored = write_file(tmp_path / "a")
    (tmp_path / "a" / "vocab.txt").write_text("</S>\nthe\n<S>\n<UNK>\ncat\n")
    published = elmo.read(tmp_path / "a")
    assert published.tokenizer.pieces == ["<S>", "</S>", "<UNK>", "the", "cat"]
    assert elmo.write(tmp_path / "b", published) == ()
    again = elmo.read(tmp_path / "b")
    assert again.config == published.config and again.tokenizer.pieces == published.tokenizer.pieces
    assert tree.diff(published.params, again.params) == []
    with h5py.File(tmp_path / "b" / "weights.hdf5") as file:
        found = {}
        file.visititems(lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) else None)
        assert set(found) == set(stored)
        for name, array in stored.items():
            assert found[name].dtype == np.float32 and np.array_equal(found[name][()], array)
    assert json.loads((tmp_path / "b" / "options.json").read_text())["char_cnn"] == OPTIONS["char_cnn"]


def test_our_paths_are_those_of_the_model(tmp_path):
    """Every parameter that the model makes but its softmax is mapped, with its shape, and nothing else is."""
    import jax
    import jax.numpy as jnp

    from ctxjax.models import bilm

    write_file(tmp_path)
    published = elmo.read(tmp_path)
    model = bilm.Model(**{name: value for name, value in published.config.items() if name != "name"})
    inputs = {"chars": jnp.zeros((1, 3, 12), jnp.int32), "mask": jnp.ones((1, 3), bool)}
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"])
    shapes = {name: leaf.shape for name, leaf in tree.flatten(made).items() if not name.startswith("head/")}
    assert shapes == {name: array.shape for name, array in published.params.items()}


def test_gates_and_kernels_stand_where_the_published_code_has_them(tmp_path):
    """Counted by hand: `W_0` is input rows over recurrent rows; our arrays have the direction first."""
    stored = write_file(tmp_path)
    params = elmo.read(tmp_path).params
    name = "RNN_1/RNN/MultiRNNCell/Cell2/LSTMCell"
    assert np.array_equal(params["layer_2/lstm/input_kernel"][1], stored[f"{name}/W_0"][:6])
    assert np.array_equal(params["layer_2/lstm/recurrent_kernel"][1], stored[f"{name}/W_0"][6:])
    assert np.array_equal(params["layer_2/lstm/bias"][1], stored[f"{name}/B"])  # the forget bias of 1 is in neither
    assert np.array_equal(params["layer_2/lstm/projection"][1], stored[f"{name}/W_P_0"])


@pytest.mark.parametrize(
    "say, rows, first",
    [
        (261, 261, 0),
        (262, 261, 0),
        (262, 262, 1),
        (261, 262, None),
        (262, 263, None),
        (260, 260, None),
        (262, 260, None),
    ],
)
def test_the_shift_by_one_is_decided_in_one_place(say, rows, first):
    if first is None:
        with pytest.raises(ConfigError, match="261"):
            elmo.character_rows(say, rows, "file")
    else:
        assert elmo.character_rows(say, rows, "file") == first


def test_a_table_with_its_padding_row_gives_the_same_vectors(tmp_path):
    stored = write_file(tmp_path / "a")
    padded = np.concatenate([np.zeros((1, 4), np.float32), stored["char_embed"]])
    write_file(tmp_path / "b", arrays=stored | {"char_embed": padded})
    a, b = (ctxjax.load(tmp_path / name).embed([["word", "s"]])[0].layers for name in "ab")
    assert np.array_equal(a, b)
    write_file(tmp_path / "c", arrays=stored | {"char_embed": padded + 1})
    with pytest.raises(ConfigError, match="row 0 of char_embed"):
        ctxjax.load(tmp_path / "c")


@pytest.mark.parametrize(
    "options, message",
    [
        (changed("char_cnn", n_characters=260), "n_characters=260"),
        (changed("char_cnn", filters=[[1, 3], [1, 4]]), "same width"),
        (changed("char_cnn", filters=[[99, 3]]), "do not fit"),
        (changed("char_cnn", filters="all"), "filters"),
        (changed("char_cnn", filters=[[1]]), "filters"),
        (changed("char_cnn", activation="gelu"), "activation"),
        (changed("char_cnn", max_characters_per_token=0), "max_characters_per_token"),
        (changed("lstm", projection_dim=10**9), "projection_dim"),
        (changed("lstm", dim="10"), "dim"),
        (changed("lstm", n_layers=4), "no array 'RNN_0/RNN/MultiRNNCell/Cell3"),
        (changed("lstm", projection_dim=5), "has shape"),
        ({"lstm": OPTIONS["lstm"]}, "char_cnn"),
        ({"char_cnn": OPTIONS["char_cnn"]}, "lstm"),
    ],
)
def test_options_that_do_not_fit_name_the_field(tmp_path, options, message):
    write_file(tmp_path, arrays=arrays_for(OPTIONS))
    (tmp_path / "options.json").write_text(json.dumps(options))
    with pytest.raises(ConfigError, match=message):
        ctxjax.load(tmp_path)


def test_the_weights_file_is_found_or_asked_for(tmp_path):
    write_file(tmp_path)
    with h5py.File(tmp_path / "embeddings.hdf5", "w") as file:
        file["0"] = np.zeros((3, 2, 4), np.float32)
    assert ctxjax.load(tmp_path).config["width"] == 10
    (tmp_path / "second.hdf5").write_bytes((tmp_path / "lm_weights.hdf5").read_bytes())
    with pytest.raises(ConfigError, match="more than one: lm_weights"):
        ctxjax.load(tmp_path)
    assert ctxjax.load(tmp_path / "second.hdf5").config["width"] == 10
    for name in ("second.hdf5", "lm_weights.hdf5"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match="has none"):
        ctxjax.load(tmp_path)


def test_a_weights_file_outside_the_folder_is_refused(tmp_path):
    write_file(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "options.json").write_text(json.dumps(OPTIONS))
    (tmp_path / "b" / "w.hdf5").symlink_to(tmp_path / "a" / "lm_weights.hdf5")
    with pytest.raises(ConfigError, match="link out of its folder"):
        ctxjax.load(tmp_path / "b")


def test_words_have_no_place_in_the_layout(tmp_path):
    write_file(tmp_path)
    published = elmo.read(tmp_path)
    with pytest.raises(ConfigError, match="word ids"):
        elmo.write(tmp_path / "out", published._replace(config=published.config | {"token": "words"}))


def test_what_the_layout_leaves_out_is_said(tmp_path):
    stored = write_file(tmp_path, arrays=arrays_for(OPTIONS) | {"softmax/W": np.ones((3, 6), np.float32)})
    published = elmo.read(tmp_path)
    assert "softmax/W" in published.notes[0] and len(stored) > 10
    more = published.params | {"head/softmax/bias": np.zeros(3, np.float32)}
    assert "left out" in elmo.write(tmp_path / "out", published._replace(params=more))[0]


def test_without_a_softmax_there_is_no_score(tmp_path):
    write_file(tmp_path)
    model = ctxjax.load(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot score: its softmax is not in the file; it can embed$"):
        model.score(["a b"])
    with pytest.raises(ConfigError, match="no masked position"):
        model.fill_mask("a [MASK]")


@pytest.mark.real_data
def test_the_tiny_elmo_to_six_decimals(data_root):
    """Real weights and the vectors that came with them: state carried through each list of sentences, top layer.

    The vectors were made in float32; in float64 the same equations differ from them by up to 1.14e-6, so six decimals
    are what they hold.
    """
    folder = data_root / "reference" / "elmo_tiny"
    model = ctxjax.load(folder)
    lists = json.loads((folder / "sentences.json").read_text())
    for number, sentences in enumerate(lists):
        found = model.embed([sentence.split() for sentence in sentences], layers="top", stateful=True)
        with h5py.File(folder / f"lm_embeddings_{number}.hdf5") as file:
            for index, have in enumerate(found):
                want = file[str(index)][()]  # [2 directions, words, 16]
                both = np.concatenate(list(want), axis=-1)
                assert have.layers.shape == (1, *both.shape)
                np.testing.assert_array_almost_equal(have.layers[0], both, decimal=6)
    words = (folder / "vocab_test.txt").read_text().split()
    with h5py.File(folder / "elmo_token_embeddings.hdf5") as file:
        tokens = np.concatenate([one.layers[0, :, :16] for one in model.embed([[word] for word in words])])
        assert np.abs(tokens - file["embedding"][()]).max() < 2e-6


@pytest.mark.real_data
def test_the_tiny_elmo_written_by_us_is_read_by_the_oracle(data_root, tmp_path):
    published = elmo.read(data_root / "reference" / "elmo_tiny")
    elmo.write(tmp_path, published)
    stored = {}
    with h5py.File(tmp_path / "weights.hdf5") as file:
        file.visititems(lambda name, node: stored.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
    options = files.read_json(tmp_path / "options.json")
    sentence = json.loads((data_root / "reference" / "elmo_tiny" / "sentences.json").read_text())[0][0].split()
    values, _ = elmo_oracle.run(stored, options, characters.table(["<S>", *sentence, "</S>"]))
    with h5py.File(data_root / "reference" / "elmo_tiny" / "lm_embeddings_0.hdf5") as file:
        assert np.abs(values[-1][1:-1] - np.concatenate(list(file["0"][()]), axis=-1)).max() < 2e-6

"""`ctxjax.load` and what it returns: embed, fill_mask, score, on runs of ours and on published layouts."""

import functools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ctxjax
from ctxjax import convert, inference, pretrained
from ctxjax.config import ConfigError
from ctxjax.interop import elmo, files, hf_bert
from ctxjax.pretrained import embedding
from tests.interop import making

TEXTS = ["The cat sat on a mat .", "he", "", "The banks of a river , unknowable 漢 É", "money"]


def opened(published, path="a model"):
    return pretrained.Pretrained(published, path)


@functools.cache
def jitted(model):
    return jax.jit(model.apply)


@pytest.fixture(scope="module")
def bert():
    return opened(making.bert())


def alone(model, ids):
    """Every layer of one row of ids in a batch of one: `[layers, pieces, width]`."""
    length = inference.padded_length(len(ids), model.config["max_len"])  # to compile little
    ids_, mask = np.zeros((1, length), np.int32), np.zeros((1, length), bool)
    ids_[0, : len(ids)], mask[0, : len(ids)] = ids, True
    outputs = jitted(model.model)({"params": model.params}, {"tokens": ids_, "mask": mask})
    return np.stack([np.asarray(layer[0, : len(ids)]) for layer in outputs.hidden])


def test_every_text_equals_the_text_alone(bert):
    tokenizer = bert.tokenizer
    for text, found in zip(TEXTS, bert.embed(TEXTS, align="piece"), strict=True):
        encoding = tokenizer.encode(text)
        assert found.words == ["[CLS]", *encoding.pieces, "[SEP]"]
        want = alone(bert, [tokenizer.cls_id, *encoding.ids, tokenizer.sep_id])
        assert found.layers.shape == (3, len(found.words), 16) and found.layers.dtype == np.float32
        assert np.abs(found.layers - want).max() < 1e-5


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_a_word_is_the_mean_or_the_first_of_its_pieces(bert, pool):
    for text in TEXTS:
        [by_piece], [by_word] = bert.embed([text], align="piece"), bert.embed([text], pool=pool)
        encoding = bert.tokenizer.encode(text)
        spans = bert.tokenizer.split_words(text)
        assert by_word.words == [text[start:end] for start, end in spans]
        assert by_word.offsets.tolist() == [list(span) for span in spans]
        assert by_word.layers.shape == (3, len(spans), 16)
        inner = by_piece.layers[:, 1:-1]
        for number in range(len(spans)):
            own = inner[:, encoding.words == number]
            want = own.mean(axis=1) if pool == "mean" else own[:, 0]
            assert np.abs(by_word.layers[:, number] - want).max() < 1e-6
    assert len(encoding.ids) >= 1


def test_given_words_are_kept_as_they_are(bert):
    words = ["The", "banks.", "\x00", "un-do", "漢漢"]
    [found] = bert.embed([words])
    assert found.words == words and found.offsets is None
    assert found.layers.shape == (3, 5, 16) and np.isfinite(found.layers).all()
    [pieces] = bert.embed([words], align="piece")
    assert len(pieces.words) > 7


def test_layers_all_top_and_mix(bert):
    everything = [one.layers for one in bert.embed(TEXTS)]
    top = [one.layers for one in bert.embed(TEXTS, layers="top")]
    plain = [one.layers for one in bert.embed(TEXTS, layers="mix")]
    learned = [one.layers for one in bert.embed(TEXTS, layers="mix", mix=[0.5, -1.0, 2.0], gamma=3.0)]
    weights = np.exp([0.5, -1.0, 2.0]) / np.exp([0.5, -1.0, 2.0]).sum()
    for a, t, p, m in zip(everything, top, plain, learned, strict=True):
        assert t.shape == p.shape == m.shape == (1, *a.shape[1:])
        assert np.abs(t[0] - a[-1]).max(initial=0) < 1e-6
        assert np.abs(p[0] - a.mean(axis=0)).max(initial=0) < 1e-6
        assert np.abs(m[0] - 3 * np.einsum("l,lwd->wd", weights, a)).max(initial=0) < 1e-5


def test_one_string_is_one_text(bert):
    assert len(bert.embed("the cat")) == 1
    assert bert.embed("the cat")[0].words == ["the", "cat"]
    assert bert.embed([]) == []
    assert bert.score("the cat").shape == (1,)


def test_long_texts_are_read_in_windows_and_it_is_said(bert):
    words = ["the", "cat", "sat", "on", "a", "mat", "bank", "river"] * 6  # 48 pieces, 18 fit
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 20 pieces"):
        long, short = bert.embed([words, ["the", "cat"]], align="piece")
    assert long.windows > 2 and short.windows == 1
    assert long.layers.shape == (3, 50, 16) and len(long.words) == 50
    ids = [bert.tokenizer.ids[word] for word in words]
    starts = [*range(0, 48 - 18, 9), 48 - 18]
    cls, sep = bert.tokenizer.cls_id, bert.tokenizer.sep_id
    values = {start: alone(bert, [cls, *ids[start : start + 18], sep]) for start in starts}
    for place in range(48):
        context = {s: min(place - s, s + 17 - place) for s in starts if s <= place < s + 18}
        best = max(context, key=lambda start: (context[start], -start))
        assert np.abs(long.layers[:, place + 1] - values[best][:, place - best + 1]).max() < 1e-5
    assert np.abs(long.layers[:, 0] - values[0][:, 0]).max() < 1e-5
    assert np.abs(long.layers[:, -1] - values[30][:, -1]).max() < 1e-5
    with pytest.raises(ConfigError, match="48 pieces is longer than the 20"):
        bert.embed([words], long="error")
    for call in (bert.score, lambda text: bert.fill_mask(" ".join([*text[0], "[MASK]"]))):
        with pytest.raises(ConfigError, match="split it"):
            call([words])


def test_a_text_that_just_fits_is_one_window(bert):
    assert bert.embed([["the"] * 18])[0].windows == 1
    with pytest.warns(UserWarning):
        assert bert.embed([["the"] * 19])[0].windows == 2


def test_fill_mask_gives_the_models_own_distribution(bert):
    text = "The [MASK] sat on [MASK] mat"
    filled = bert.fill_mask(text, k=7)
    assert len(filled) == 2 and all(len(one) == 7 for one in filled)
    tokenizer = bert.tokenizer
    ids = [tokenizer.cls_id, *tokenizer.encode(text, special=True).ids, tokenizer.sep_id]
    top = jnp.asarray(alone(bert, ids)[-1])
    rows, table, bias = bert.model.apply({"params": bert.params}, top, method="readout")
    logits = np.asarray(rows) @ np.asarray(table).T + np.asarray(bias)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for place, found in zip(np.flatnonzero(np.array(ids) == tokenizer.mask_id), filled):
        best = np.argsort(-chances[place])[:7]
        assert [piece for piece, _ in found] == [tokenizer.pieces[i] for i in best]
        assert np.abs([chance for _, chance in found] - chances[place][best]).max() < 1e-5
    assert abs(sum(chance for _, chance in bert.fill_mask(text, k=len(tokenizer))[0]) - 1) < 1e-5
    for wrong in ({"text": "no mask"}, {"text": text, "k": 0}, {"text": text, "k": 10**6}):
        with pytest.raises(ConfigError):
            bert.fill_mask(**wrong)


def test_score_of_a_masked_model_masks_every_piece_in_turn(bert):
    texts = ["the cat sat", "the unbanks of", "money", ""]
    tokenizer, want = bert.tokenizer, []
    for text in texts:
        ids = [tokenizer.cls_id, *tokenizer.encode(text).ids, tokenizer.sep_id]
        total = 0.0
        for place in range(1, len(ids) - 1):
            masked = list(ids)
            masked[place] = tokenizer.mask_id
            top = jnp.asarray(alone(bert, masked)[-1][place : place + 1])
            rows, table, bias = bert.model.apply({"params": bert.params}, top, method="readout")
            logits = np.asarray(rows @ table.T + bias[None], np.float64)[0]
            total += logits[ids[place]] - np.log(np.exp(logits).sum())
        want.append(total)
    found = bert.score(texts)
    assert found.dtype == np.float64 and np.abs(found - want).max() < 1e-4
    counts = [max(1, len(tokenizer.encode(text).ids)) for text in texts]
    assert np.allclose(bert.score(texts, per_token=True), found / counts)


def test_few_programs_are_compiled_for_many_lengths():
    model = opened(making.bert())
    rng = np.random.default_rng(0)
    texts = [["the"] * int(n) for n in rng.integers(1, 18, 60)]
    for start in range(0, 60, 20):
        model.embed(texts[start : start + 20], layers="top")
    seen = model.runner._hidden._cache_size()
    assert seen <= 3 * 3  # lengths 8, 16, 20, in 4, 8 or 16 rows
    model.embed(texts[:20], layers="top")
    assert model.runner._hidden._cache_size() == seen


@pytest.mark.parametrize("longest", [None, 100])
def test_batches_hold_every_text_once_and_within_the_budget(longest):
    lengths = np.random.default_rng(1).integers(1, 101, 500).tolist()
    batches = inference.plan(lengths, longest, tokens_per_batch=512)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(500))
    for batch in batches:
        assert max(lengths[index] for index in batch.indices) <= batch.length
        assert len(batch.indices) <= batch.rows < 2 * len(batch.indices)
        assert batch.rows & (batch.rows - 1) == 0
        assert batch.rows == 1 or batch.rows * batch.length <= 512
    padded = sum(batch.rows * batch.length for batch in batches)
    assert sum(lengths) / padded > 0.75
    assert inference.padded_length(1) == 8 and inference.padded_length(97) == 128
    assert [inference.padded_length(n) for n in (8, 9, 17, 33, 49, 65)] == [8, 16, 32, 48, 64, 96]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers": "last"}, "layers='last' is not one of all, top, mix"),
        ({"align": "char"}, "align"),
        ({"pool": "max"}, "pool"),
        ({"long": "cut"}, "long"),
        ({"layers": "mix", "mix": [1.0]}, "mix= has 1 weights, and this model 3 layers"),
        ({"mix": [0.0, 0.0, 0.0]}, "mix="),
        ({"stateful": True}, "stateful=True"),
    ],
)
def test_options_that_there_are_not(bert, options, message):
    with pytest.raises(ConfigError, match=message):
        bert.embed(["the"], **options)


def test_a_model_without_heads_says_what_it_can(bert):
    model = opened(making.bert(missing=("mlm", "nsp", "pooler")), "encoder")
    assert model.can == ("embed",)
    for method in (model.fill_mask, model.score):
        with pytest.raises(
            ConfigError, match=r"encoder cannot \w+: its masked-word head is not in the file; it can embed$"
        ):
            method("the [MASK]")
    assert "without mlm, nsp, pooler" in repr(model)
    full = bert.embed(TEXTS)
    assert all(np.array_equal(a.layers, b.layers) for a, b in zip(model.embed(TEXTS), full))  # no head touches them
    bare = opened(making.bert()._replace(tokenizer=None), "bare")
    with pytest.raises(ConfigError, match="no vocabulary"):
        bare.embed("the")


def test_stream_reads_no_further_than_it_must():
    model = pretrained.Pretrained(making.bert(), "a model", tokens_per_batch=16)
    taken = 0

    def texts():
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield ["the", "cat"]

    stream = model.stream(texts())
    first = next(stream)
    assert first.words == ["the", "cat"] and taken <= 16 * embedding.CHUNK_BATCHES // 4 + 1
    assert sum(1 for _ in stream) == 999 and taken == 1000


def test_a_run_of_ours_is_opened_by_its_folder_or_step(tmp_path, bert):
    hf_bert.write(tmp_path / "hf", making.bert())
    convert.convert(str(tmp_path / "hf"), str(tmp_path / "run"), "ctxjax")
    want = bert.embed(TEXTS)
    for path in ("run", "run/checkpoints", "run/checkpoints/00000000"):
        model = ctxjax.load(tmp_path / path)
        assert model.meta["step"] == 0 and model.missing == ()
        assert all(np.array_equal(a.layers, b.layers) for a, b in zip(model.embed(TEXTS), want, strict=True))
    assert ctxjax.load(tmp_path / "run", step=0).tokenizer.digest() == bert.tokenizer.digest()
    with pytest.raises(ConfigError, match="step 7"):
        ctxjax.load(tmp_path / "run", step=7)
    with pytest.raises(ConfigError, match="no run folder"):
        ctxjax.load(tmp_path / "hf", step=7)


def test_how_a_run_was_computed_does_not_matter_for_its_use(bert):
    published = making.bert()
    config = published.config | {"dtype": "bfloat16", "remat": True, "attention_implementation": "cudnn"}
    model = opened(published._replace(config=config))
    assert all(np.array_equal(a.layers, b.layers) for a, b in zip(model.embed(TEXTS), bert.embed(TEXTS)))


def test_what_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        ctxjax.load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="neither a run folder"):
        ctxjax.load(tmp_path)
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        ctxjax.load(tmp_path / "young")
    (tmp_path / "bert_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"ctxjax\.convert"):
        ctxjax.load(tmp_path)


@pytest.fixture(scope="module", params=["chars", "words"])
def bilm(request):
    return opened(making.bilm(request.param), f"biLM over {request.param}")


BILM_TEXTS = [
    ["the", "cat", "sat", "."],
    ["bank"],
    [],
    ["zebra", "on", "the", "mat", "river", "bank", "the", "the", "."],
]


def test_a_bilm_gives_each_text_alone_and_depth_plus_one_layers(bilm):
    found = bilm.embed(BILM_TEXTS)
    for words, one in zip(BILM_TEXTS, found, strict=True):
        assert one.words == words and one.layers.shape == (3, len(words), 12)
        [again] = bilm.embed([words])
        assert np.abs(again.layers - one.layers).max(initial=0) < 1e-6


def test_a_bilms_halves_see_one_side_each(bilm):
    a, b = (bilm.embed([["the", "cat", word]])[0].layers[-1] for word in ("sat", "river"))
    assert np.abs(a[:2, :6] - b[:2, :6]).max() < 1e-6  # forward: what comes later does not matter
    assert np.abs(a[:2, 6:] - b[:2, 6:]).max() > 1e-4


def test_score_of_a_bilm_is_the_mean_of_both_directions(bilm):
    tokenizer = bilm.tokenizer
    table, bias = (np.asarray(bilm.params["head"]["softmax"][name], np.float64) for name in ("embedding", "bias"))
    want, counts = [], []
    for words in BILM_TEXTS:
        [one] = bilm.embed([words], layers="top", align="piece")
        top = one.layers[0].astype(np.float64)
        ids = [tokenizer.bos_id, *(tokenizer.ids.get(w, tokenizer.unk_id) for w in words), tokenizer.eos_id]

        def log_prob(row, target):
            logits = table @ row + bias
            return logits[target] - np.log(np.exp(logits).sum())

        forward = sum(log_prob(top[t, :6], ids[t + 1]) for t in range(len(ids) - 1))
        backward = sum(log_prob(top[t, 6:], ids[t - 1]) for t in range(1, len(ids)))
        want.append((forward + backward) / 2)
        counts.append(len(words) + 1)
    assert np.abs(bilm.score(BILM_TEXTS) - want).max() < 1e-4
    assert np.allclose(bilm.score(BILM_TEXTS, per_token=True), np.array(want) / counts, atol=1e-5)


def test_a_bilm_has_no_mask(bilm):
    assert bilm.can == ("embed", "score")
    with pytest.raises(ConfigError, match="no masked position; it can embed and score"):
        bilm.fill_mask("the [MASK]")


def test_an_unknown_words_characters_are_read():
    model = opened(making.bilm("chars"))
    a, b = model.embed([["zebra"], ["giraffe"]])
    assert np.abs(a.layers - b.layers).max() > 1e-3
    by_id = opened(making.bilm("words"))
    a, b = by_id.embed([["zebra"], ["giraffe"]])
    assert np.array_equal(a.layers, b.layers)


def test_characters_are_lower_cased_where_the_vocabulary_is(tmp_path):
    """In training the characters are those of the vocabulary's words, so "The" was never read."""
    cased, lower = (opened(making.bilm("chars", lowercase)) for lowercase in (False, True))
    (a, b), (c, d) = (model.embed([["The", "Zebra"], ["the", "zebra"]]) for model in (cased, lower))
    assert np.abs(a.layers - b.layers).max() > 1e-3
    assert c.words == ["The", "Zebra"] and np.array_equal(c.layers, d.layers)
    assert "lower-case" in elmo.write(tmp_path, making.bilm("chars", lowercase=True))[1]


def test_three_lines_of_a_notebook(tmp_path):
    """In a fresh process, on the CPU, without a mesh, and without torch, TensorFlow or transformers."""
    hf_bert.write(tmp_path, making.bert())
    script = """
        import ctxjax
        model = ctxjax.load({path!r})
        [text] = model.embed("The cat sat .")
        assert text.words == ["The", "cat", "sat", "."] and text.layers.shape == (3, 4, 16)
        import sys
        assert not {{"torch", "tensorflow", "transformers", "pickle5"}} & set(sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script.format(path=str(tmp_path)))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert files.read_json(tmp_path / "config.json")["model_type"] == "bert"

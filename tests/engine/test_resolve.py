"""What a downstream config leaves to its checkpoint: encoder, tokenizer, rows of the table, characters."""

import importlib

import jax
import ml_collections
import pytest

from ctxjax import convert, formats, transfer, tree
from ctxjax.config import ConfigError, placeholder
from ctxjax.data.generated import make_tokenizer
from ctxjax.interop.files import Published


def published(name, kind):
    """A tiny model with the tokenizer of a kind, parameters all zero."""
    tokenizer = make_tokenizer(kind)
    tiny = importlib.import_module(f"ctxjax.models.{name}").tiny()
    fields = {f: getattr(tiny, f) for f in tiny.__dataclass_fields__ if f not in ("parent", "name")}
    model = tiny.clone(vocab_size=len(tokenizer))
    inputs = {"tokens": jax.ShapeDtypeStruct((1, 4), "int32")}
    if hasattr(model, "max_chars"):
        inputs["chars"] = jax.ShapeDtypeStruct((1, 4, model.max_chars), "int32")
    shapes = jax.eval_shape(lambda inputs: model.init(jax.random.key(0), inputs, method="touch")["params"], inputs)
    params = {path: jax.numpy.zeros(leaf.shape, leaf.dtype) for path, leaf in tree.flatten(shapes).items()}
    return Published({"name": name, **fields, "vocab_size": len(tokenizer)}, params, tokenizer)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs of a BERT, a GPT and a biLM, as convert writes them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, kind in (("bert", "wordpiece"), ("gpt", "bpe"), ("bilm", "words")):
        convert.write_run(folder / name, published(name, kind), {}, "elsewhere")
    return folder


def make(path=None, encoder=None, tokenizer="", **source):
    config = ml_collections.ConfigDict()
    config.model = dict(name="downstream", encoder=encoder or {}, labels=("a", "b"))
    config.source = dict(name="examples", tokenizer=tokenizer, framing="", max_chars=0, **source)
    config.init_from = dict(path=placeholder(str), pattern=".*", optimizer=False)
    if path is not None:
        config.init_from.path = str(path)
    return config.lock()


def test_fields_come_from_the_checkpoint_and_given_ones_win(runs):
    config = make(runs / "bert", {"name": "bert", "dropout": 0.3, "vocab_size": 30522})
    transfer.resolve(config)
    encoder = config.model.encoder
    assert (encoder.width, encoder.depth, encoder.dropout) == (16, 2, 0.3)
    assert encoder.vocab_size == len(make_tokenizer("wordpiece"))
    assert config.source.tokenizer.endswith("tokenizer") and config.source.max_chars == 0 and config.is_locked
    before = config.to_json_best_effort()
    transfer.resolve(config)
    assert config.to_json_best_effort() == before


def test_new_rows_of_gpt_and_characters_of_a_bilm(runs):
    config = make(runs / "gpt")
    transfer.resolve(config)
    assert config.model.encoder.vocab_size == len(make_tokenizer("bpe")) + 3
    config = make(runs / "bilm")
    transfer.resolve(config)
    assert config.source.max_chars == config.model.encoder.max_chars == 16
    assert config.model.encoder.filters == ((1, 4), (2, 6), (3, 8))


def test_a_run_that_is_gone_on_with_says_the_fields(runs, tmp_path):
    config = make(runs / "gpt", tokenizer=str(tmp_path / "gone"))
    transfer.resolve(config, runs / "bert")
    assert config.model.encoder.name == "bert" and "bert" in config.source.tokenizer
    transfer.resolve(other := make(runs / "gpt"), tmp_path)  # holds no checkpoint yet
    assert other.model.encoder.name == "gpt"


def test_the_encoder_of_a_downstream_run_is_opened(tmp_path):
    """`load`, and `init_from` once more, see the encoder alone."""
    bert = published("bert", "wordpiece")
    params = {
        **{k: v for k, v in bert.params.items() if not k.startswith("head/")},
        "task/classify/bias": 0 * bert.params["pooler/bias"][:2],
    }
    whole = Published({"name": "downstream", "encoder": bert.config, "labels": ("a", "b")}, params, bert.tokenizer)
    convert.write_run(tmp_path / "tuned", whole, {}, "elsewhere")
    config = make(tmp_path / "tuned")
    transfer.resolve(config)
    assert config.model.encoder.name == "bert"
    found, _ = formats.read(tmp_path / "tuned")
    assert found.config["name"] == "bert" and "task/classify/bias" not in found.params and "mlm" in found.missing


def test_other_configs_are_left_alone():
    config = ml_collections.ConfigDict({"model": {"name": "bert"}}).lock()
    transfer.resolve(config)
    assert config.model.to_dict() == {"name": "bert"}


def test_mistakes_are_named(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"config.init_from.path is empty: name the pretrained run"):
        transfer.resolve(make())
    with pytest.raises(ConfigError, match=r"config.model.encoder.name='gpt', and .* holds a 'bert'"):
        transfer.resolve(make(runs / "bert", {"name": "gpt"}))
    with pytest.raises(ConfigError, match=r"is no run of ctxjax; .*ctxjax.convert"):
        transfer.resolve(make(tmp_path))
    with pytest.raises(ConfigError, match=r"config.init_from.path: .*holds no complete checkpoint"):
        transfer.resolve(make(tmp_path / "nowhere"))
    convert.write_run(tmp_path / "bare", published("bert", "wordpiece")._replace(tokenizer=None), {}, "elsewhere")
    with pytest.raises(ConfigError, match=r"has no tokenizer: set config.source.tokenizer"):
        transfer.resolve(make(tmp_path / "bare"))

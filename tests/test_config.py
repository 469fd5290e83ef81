"""Config arguments, overrides, building by name, lengths of training and fingerprints."""

import sys
import textwrap

import pytest

from ctxjax import config as configs
from ctxjax.config import ConfigError, Duration

FILE = """
    import ml_collections
    from ctxjax.config import parse_arg, placeholder

    def get_config(arg=None):
        arg = parse_arg(arg, size="tiny", smoke=False)
        config = ml_collections.ConfigDict()
        config.seed = 0
        config.note = placeholder(str)
        config.optim = dict(lr=1e-3, clip=1.0, betas=(0.9, 0.999))
        config.model = dict(name="bert", depth=2 if arg.smoke else 12)
        return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "one.py"
    path.write_text(textwrap.dedent(FILE))
    return configs.load(f"{path}:smoke")


def test_parse_arg_types_and_bare_names():
    arg = configs.parse_arg("size=large,smoke,phase=2,lr=1e-4", size="base", smoke=False, phase=1, lr=1.0)
    assert (arg.size, arg.smoke, arg.phase, arg.lr) == ("large", True, 2, 1e-4)
    assert configs.parse_arg(None, size="base").size == "base"
    assert configs.parse_arg("smoke=false", smoke=True).smoke is False


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("sise=large", "did you mean 'size'"),
        ("phase=two", "phase='two' is not of type int"),
        ("size", "'size' needs a value, as in size=base"),
        ("smoke=maybe", "not of type bool"),
    ],
)
def test_parse_arg_mistakes(arg, message):
    with pytest.raises(ConfigError, match=message):
        configs.parse_arg(arg, size="base", smoke=False, phase=1)


def test_load_passes_the_argument_and_locks(config):
    assert config.model.depth == 2
    with pytest.raises(AttributeError):
        config.sede = 1


def test_load_names_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        configs.load(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="has no get_config"):
        configs.load(str(tmp_path / "empty.py"))


def test_override_keeps_types(config):
    settings = {"seed": "1_000", "optim.lr": "2", "optim.betas": "[0.5, 0.9]", "note": "text", "model.depth": "3"}
    configs.override(config, settings)
    assert (config.seed, config.optim.lr, config.optim.betas) == (1000, 2.0, (0.5, 0.9))
    assert (config.note, config.model.depth) == ("text", 3)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("optim.rl", "1", "unknown config field 'optim.rl'; did you mean 'optim.lr'"),
        ("sed.x", "1", "unknown config field"),
        ("seed", "1.5", "seed='1.5' is not of type int"),
        ("optim.lr", "fast", "is not of type float"),
        ("optim", "1", "config field optim"),
        ("optim.betas", "half", "is not of type tuple"),
    ],
)
def test_override_mistakes(config, field, text, message):
    with pytest.raises(ConfigError, match=message):
        configs.override(config, {field: text})


def test_leaves_are_dotted(config):
    assert configs.leaves(config)["optim.lr"] == 1e-3
    assert configs.leaves(config)["note"] is None
    assert configs.to_dict(config)["optim"]["betas"] == [0.9, 0.999]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A model outside the tree, `outside.mymodel`."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "__init__.py").write_text("")
    (tmp_path / "outside" / "mymodel.py").write_text(
        "class Model:\n    def __init__(self, depth, width=4):\n        self.made = (depth, width)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "outside.mymodel"
    for name in [name for name in sys.modules if name.startswith("outside")]:
        del sys.modules[name]


def test_build_by_dotted_name_leaves_empty_fields_to_the_default(module):
    assert configs.build("model", {"name": module, "depth": 2, "width": None}).made == (2, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 1, "widht": 2}, "config.model.widht is not a field of model .*did you mean 'width'"),
        ({}, "missing a required argument: 'depth'"),
        ({"name": "no_such_model"}, "names no module"),
        ({"name": "outside.none"}, "names no module"),
        ({"name": None}, "config.model has no field 'name'"),
    ],
)
def test_build_mistakes(module, fields, message):
    with pytest.raises(ConfigError, match=message):
        configs.build("model", {"name": module} | fields)


def test_fingerprint_ignores_order_and_sees_values():
    assert configs.fingerprint({"a": 1, "b": [2]}) == configs.fingerprint({"b": [2], "a": 1})
    assert configs.fingerprint({"a": 1}) != configs.fingerprint({"a": 2})


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1000 steps", 1000),
        ("1_000 step", 1000),
        ("2 epochs", 250),
        ("1e6 tokens", 500),
        ("0.5 percent", 10),
        ("5%", 100),
        ("1 tokens", 1),
    ],
)
def test_durations(text, steps):
    duration = Duration.parse(text, "total")
    assert duration.steps(steps_per_epoch=125, tokens_per_step=2000, total_steps=2000) == steps


def test_duration_mistakes():
    with pytest.raises(ConfigError, match=r"config.log_every='often' is not a length"):
        Duration.parse("often", "log_every")
    with pytest.raises(ConfigError, match="cannot be a percentage"):
        Duration.parse("5 percent", "total").steps(steps_per_epoch=1, tokens_per_step=1)

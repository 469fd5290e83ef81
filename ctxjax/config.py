"""Configs: plain Python functions that return a locked `ConfigDict`, each sub-dict the arguments of one constructor.

`get_config(arg)` picks *which experiment* through its argument (`experiments/bert/pretrain.py:size=large`), dotted
flags change *values* (`--config.optim.lr=1e-4`). A sub-dict names its module (`name = "bert"`), the rest of it becomes
keyword arguments, so Python itself reports what is unknown or missing. There is no registry.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

# What `name = "bert"` in a sub-dict of the config is looked up in, and the class its module exports.
PLACES = {
    "model": ("ctxjax.models", "Model"),
    "objective": ("ctxjax.objectives", "Objective"),
    "source": ("ctxjax.data.sources", "Source"),
    "evaluator": ("ctxjax.evaluators", "Evaluator"),
}


# Fields of a run that its config may leave out, and a flag sets all the same.
OPTIONAL = {"best": str, "patience": int, "seeds": int, "seeds_at_once": int, "reproduces": str}

Fields = Mapping[str, Any] | ml_collections.ConfigDict  # which is not a Mapping


class ConfigError(ValueError):
    """A mistake in a config, flag, file or checkpoint; its message is one sentence that names the mend."""


def placeholder(kind: type) -> Any:
    """An optional field of a config: typed, empty until set."""
    return config_dict.placeholder(kind)


def run_config(every: str, keep: int = 2) -> ml_collections.ConfigDict:
    """A config with the fields that say how any run is carried out; what is trained, and on what, comes on top.

    Args:
      every: cadence of checkpoints and evaluations, as in "1000 steps".
      keep: checkpoints that stay.
    """
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.accum_steps = 1
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    config.rules = "default"
    config.vocab_multiple = 1  # rows of the vocabulary's tables in memory; see ctxjax/padding.py
    config.log_every = "50 steps"
    config.save_every = every
    config.eval_every = every
    config.keep = keep
    config.max_skipped = 10
    config.init_from = dict(path=placeholder(str), pattern=".*", optimizer=False, fresh_rows="random")
    config.tensorboard = False
    config.wandb = False
    config.profile_steps = placeholder(str)
    config.workers = 0
    config.threads = 2
    return config


def prepared(name: str) -> str:
    """`$CTXJAX_DATA/prepared/NAME`, or "" where there is no such variable and the corpus has to be named."""
    root = os.environ.get("CTXJAX_DATA")
    return os.path.join(root, "prepared", name) if root else ""


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Parse `"size=large,smoke"` against typed defaults.

    Args:
      arg: what stands behind the colon of `--config file.py:arg`; a bare name sets a boolean to True.
      **defaults: every accepted name with its default; the default's type is the type of the value.

    Raises:
      ConfigError: an unknown name or a value of the wrong type.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, equals, text = item.partition("=")
        if name not in defaults:
            raise ConfigError(f"unknown config argument {name!r}{did_you_mean(name, defaults)}")
        kind = type(defaults[name])
        if not equals and kind is not bool:
            raise ConfigError(f"config argument {name!r} needs a value, as in {name}={defaults[name]}")
        try:
            values[name] = _parse_bool(text or "true") if kind is bool else kind(text)
        except ValueError:
            raise ConfigError(f"config argument {name}={text!r} is not of type {kind.__name__}") from None
    return ml_collections.ConfigDict(values)


def _parse_bool(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError(text)


def did_you_mean(name: str, known: Any) -> str:
    """`; did you mean 'x'?` or the list of what is known."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def _config_module(path: str) -> Any:
    if not os.path.isfile(path):
        raise ConfigError(f"config file {path!r} does not exist")
    module_spec = importlib.util.spec_from_file_location("ctxjax_config", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def load(spec: str) -> ml_collections.ConfigDict:
    """Load `path/to/file.py:argument` and lock the result. The file is code and is executed.

    Raises:
      ConfigError: no such file, or no `get_config` in it.
    """
    path, _, arg = spec.partition(":")
    module = _config_module(path)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"config file {path!r} has no get_config(arg)")
    return module.get_config(arg or None).lock()


def load_sweep(spec: str) -> list[dict[str, Any]]:
    """What `get_sweep()` of a config file yields: dotted fields and their values, one dict a run.

    Raises:
      ConfigError: no such file, or no `get_sweep` in it.
    """
    path = spec.partition(":")[0]
    module = _config_module(path)
    if not hasattr(module, "get_sweep"):
        raise ConfigError(f"config file {path!r} has no get_sweep(): write one that yields dicts of dotted fields")
    return [dict(settings) for settings in module.get_sweep()]


def grid(**fields: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Every combination of values of dotted fields: `grid(**{"optim.lr": (5e-5, 3e-5), "batch_size": (16, 32)})`."""
    for values in itertools.product(*fields.values()):
        yield dict(zip(fields, values))


def override(config: ml_collections.ConfigDict, settings: Mapping[str, str]) -> None:
    """Set dotted fields from text in place: `{"optim.lr": "1e-4"}`.

    Raises:
      ConfigError: an unknown field (with a suggestion) or a text that is not of the field's type.
    """
    for name, text in settings.items():
        if name in OPTIONAL and name not in config and "total" in config:
            with config.unlocked():
                config[name] = placeholder(OPTIONAL[name])
        node: Any = config
        parts = name.split(".")
        for depth, part in enumerate(parts):
            if not isinstance(node, ml_collections.ConfigDict) or part not in node:
                known = leaves(config)
                raise ConfigError(f"unknown config field {name!r}{did_you_mean(name, known)}")
            if depth < len(parts) - 1:
                node = node[part]
        field, kind = parts[-1], node.get_type(parts[-1])
        try:
            node[field] = _parse_value(text, kind)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"config field {name}={text!r} is not of type {kind.__name__}") from error


def _parse_value(text: str, kind: type) -> Any:
    if kind is bool:
        return _parse_bool(text)
    if kind is str:
        return text
    if kind is int:
        return int(text.replace("_", ""))
    if kind is float:
        return float(text)
    if issubclass(kind, (list, tuple)):
        return kind(json.loads(text))
    raise TypeError(kind)


def leaves(config: Fields, prefix: str = "") -> dict[str, Any]:
    """Every field of a config by its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, (ml_collections.ConfigDict, dict)):
            flat |= leaves(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def to_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Plain JSON-able data (tuples become lists), so nothing but JSON is ever stored."""
    return json.loads(config.to_json_best_effort())


def as_tuples(value: Any) -> Any:
    """With tuples for lists, which is what JSON makes of them and a module's fields must not be."""
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def build(place: str, config: Fields, **more: Any) -> Any:
    """Construct what a sub-dict names.

    `build("model", {"name": "bert", "depth": 2})` is `ctxjax.models.bert.Model(depth=2)`.

    Args:
      place: a key of `PLACES`; a dotted `name` (`mylab.mymodel`) is imported as it is.
      config: the sub-dict; fields that are None (empty placeholders) are left to the constructor's default.
      **more: arguments that the caller adds.

    Raises:
      ConfigError: no such module, or an argument that its class does not know or lacks.
    """
    package, attribute = PLACES[place]
    fields = {key: value for key, value in config.items() if value is not None}
    if "name" not in fields:
        raise ConfigError(f"config.{place} has no field 'name'")
    name = fields.pop("name")
    made = getattr(_module(place, package, name), attribute)
    fields = {
        key: as_tuples(value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value)
        for key, value in fields.items()
    }
    known = [key for key in inspect.signature(made).parameters if key not in ("parent", "name")]
    for key in fields:
        if key not in known:
            raise ConfigError(f"config.{place}.{key} is not a field of {place} {name!r}{did_you_mean(key, known)}")
    try:
        inspect.signature(made).bind(**fields, **more)
    except TypeError as error:
        raise ConfigError(f"config.{place} ({name}): {error}") from None
    return made(**fields, **more)


def _module(place: str, package: str, name: str) -> Any:
    path = name if "." in name else f"{package}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and not path.startswith(error.name):
            raise  # the module exists, but something that it imports does not
        import pkgutil

        found = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
        raise ConfigError(f"config.{place}.name={name!r} names no module{did_you_mean(name, found)}") from None


def fingerprint(value: Any) -> str:
    """A short digest of JSON-able data, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


UNITS = ("steps", "epochs", "tokens", "percent")
_DURATION = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*(step|epoch|token|percent|%)s?")


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training as the user wrote it: `"1000 steps"`, `"3 epochs"`, `"1e9 tokens"`, `"5 percent"`."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str, field: str) -> Duration:
        """Raises ConfigError, naming the config field, when the text is not a number with a unit."""
        match = _DURATION.fullmatch(text.strip())
        if not match:
            raise ConfigError(
                f"config.{field}={text!r} is not a length such as '100 steps' (units: {', '.join(UNITS)})"
            )
        unit = {"%": "percent", "percent": "percent"}.get(match[2], match[2] + "s")
        return cls(float(match[1].replace("_", "")), unit)

    def steps(
        self, *, steps_per_epoch: int | float, tokens_per_step: int | float, total_steps: int | None = None
    ) -> int:
        """The number of steps, at least 1.

        Args:
          steps_per_epoch: steps of one pass over the data.
          tokens_per_step: tokens of one global batch.
          total_steps: the whole run, which a percentage refers to.
        """
        if self.unit == "percent" and total_steps is None:
            raise ConfigError("the length of the run itself cannot be a percentage")
        scale = {
            "steps": 1.0,
            "epochs": steps_per_epoch,
            "tokens": 1.0 / tokens_per_step,
            "percent": (total_steps or 0) / 100.0,
        }[self.unit]
        return max(1, round(self.amount * scale))

"""Starting from another run's checkpoint: continued pretraining, the second phase of BERT, a grown vocabulary.

Parts are chosen by regular expression; an array is copied where path and shape agree. Where the two tokenizers differ,
the rows of every array that has one row a piece are matched by piece: what the old vocabulary lacks keeps its fresh
initialisation, or starts at the mean of the old rows, as ULMFiT's new words do. Anything else that does not fit is
refused by name, never cut or padded. Where the other run averaged its parameters, the averages are what is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctxjax import checkpoint, digests, folders, optim, paths, processes, tree
from ctxjax import config as configs
from ctxjax.config import ConfigError
from ctxjax.data.transforms.framing import open_framed
from ctxjax.step import TrainState

FRESH_ROWS = ("random", "mean")
Config = Any  # a locked ml_collections.ConfigDict, whose fields no type checker knows


def resolve(config: Config, continued: str | os.PathLike[str] | None = None) -> None:
    """Fill what a downstream config leaves to the checkpoint that it begins with: the encoder's fields, the tokenizer.

    `config.model.encoder` gets the fields that it does not have, `config.source.tokenizer`, where it is empty, the
    tokenizer beside the checkpoint. How many rows the encoder's table has, and whether it reads characters, follow.
    Other configs are left as they are.

    Args:
      config: changed in place.
      continued: a run folder, or a step folder, that is gone on with or evaluated: where it holds a checkpoint, that
        one says the fields.

    Raises:
      ConfigError: nothing to begin with, or a checkpoint of another kind of model than the config names.
    """
    if "encoder" not in config.model:
        return
    path = config.init_from.path if "init_from" in config else None
    folder = _continued(continued) or (_origin(path) if path else None)
    given = config.model.encoder or {}
    fields = {name: value for name, value in given.items() if value is not None}
    if folder is not None:
        theirs = folders.read_meta(folder)["config"]["model"]
        theirs = theirs["encoder"] if "encoder" in theirs else theirs
        if fields.get("name", theirs["name"]) != theirs["name"]:
            raise ConfigError(
                f"config.model.encoder.name={fields['name']!r}, and {folder} holds a {theirs['name']!r}: use the "
                "config of that kind of model, or another checkpoint"
            )
        fields = {name: configs.as_tuples(value) for name, value in theirs.items() if value is not None} | fields
    with config.unlocked():
        source = config.source
        lost = "tokenizer" in source and not (source.tokenizer and paths.at(source.tokenizer).exists())
        if lost and folder is not None:
            if not (folder / "tokenizer").is_dir():
                raise ConfigError(f"{folder} has no tokenizer: set config.source.tokenizer to the folder of one")
            source.tokenizer = os.fspath(folder / "tokenizer")
        if "name" not in fields or ("tokenizer" in source and not source.tokenizer):
            raise ConfigError(
                "config.init_from.path is empty: name the pretrained run to begin with, or set config.model.encoder "
                "and config.source.tokenizer"
            )
        if "tokenizer" in source:
            plain = "framing" not in source
            fields["vocab_size"] = len(open_framed(source.tokenizer, "bare" if plain else source.framing))
        if "max_chars" in source:
            made = configs.build("model", fields)
            reads = getattr(made, "token", "") == "chars"
            source.max_chars = made.max_chars if reads else 0
        config.model.encoder = fields


def _continued(path: str | os.PathLike[str] | None) -> Any:
    """The newest step of a run that is gone on with, if it has one."""
    if path is None:
        return None
    try:
        return folders.find(path)
    except ConfigError:
        return None


def _origin(path: str) -> Any:
    try:
        return folders.find(path)
    except ConfigError as error:
        if paths.at(path).exists() and not (paths.at(path) / "checkpoints").is_dir():
            raise ConfigError(
                f"config.init_from.path={path!r} is no run of ctxjax; if it holds published weights, convert them "
                f"once: python -m ctxjax.convert {path} DIR --to ctxjax"
            ) from None
        raise ConfigError(f"config.init_from.path: {error}") from None


def _rows_by_piece(old: Any, new: Any) -> tuple[np.ndarray, np.ndarray]:
    """`(rows of the new table, rows of the old one)` that hold the same piece."""
    pairs = [(index, old.ids[piece]) for index, piece in enumerate(new.pieces) if piece in old.ids]
    if not pairs:
        raise ConfigError("config.init_from: the two vocabularies share no piece")
    rows = np.asarray(pairs, np.int64)
    return rows[:, 0], rows[:, 1]


def init_from(
    state: TrainState,
    tokenizer: Any,
    path: str | os.PathLike[str],
    pattern: str = ".*",
    optimizer: bool = False,
    fresh_rows: str = "random",
    report: Callable[[str], None] = print,
) -> TrainState:
    """A fresh state with parameters of a checkpoint in it; the step number stays 0.

    Args:
      state: the fresh state, placed on its mesh.
      tokenizer: of the new run.
      path: a run folder or step folder of the other run.
      pattern: regular expression over parameter paths, as in `"^(embed|layer_)"`; what it leaves out stays fresh.
      optimizer: take the optimiser's slots of the same parameters too, and its counts, from which the
        learning-rate schedule goes on.
      fresh_rows: where pieces start that the other vocabulary lacks, in every parameter with one row a piece, tables
        and biases: "random", their fresh initialisation, or "mean", the mean of all rows there.
      report: called with one sentence on what was taken and what stays fresh.

    Raises:
      ConfigError: no good checkpoint, a pattern that matches nothing, or an array that does not fit, by name.
    """
    if fresh_rows not in FRESH_ROWS:
        raise ConfigError(f"config.init_from.fresh_rows={fresh_rows!r} is neither 'random' nor 'mean'")
    folder = folders.find(path)
    problems = processes.agree("init_from", lambda: "\n".join(digests.verify(folder)))
    if problems:
        raise ConfigError(f"config.init_from.path: {folder} is damaged: {problems.splitlines()[0]}; use another step")
    meta = folders.read_meta(folder)
    there = checkpoint.abstract_of(meta)
    here = tree.flatten(state)
    wanted = {f"params/{name}" for name in tree.select(state.params, pattern)}
    if not wanted:
        raise ConfigError(f"config.init_from.pattern={pattern!r} matches no parameter; one is {next(iter(here))!r}")
    if optimizer:
        wanted |= {name for name in here if name.startswith("opt_state/") and _slot_of(name, wanted)}
    taken = [name for name in here if name in wanted and name in there]
    if not any(name.startswith("params/") for name in taken):
        raise ConfigError(f"config.init_from: {folder} has none of the parameters that {pattern!r} matches")

    same = tokenizer.digest() == meta["tokenizer"]
    new_rows = old_rows = np.zeros(0, np.int64)
    old_size = len(tokenizer)
    if not same:
        from ctxjax.text import open_tokenizer

        old = open_tokenizer(folder / "tokenizer")
        old_size = len(old)
        new_rows, old_rows = _rows_by_piece(old, tokenizer)

    def by_row(name: str) -> bool:
        ours, theirs = here[name].shape, there[name].shape
        return (
            not same
            and len(ours) == len(theirs) > 0
            and (ours[0], theirs[0]) == (len(tokenizer), old_size)
            and ours[1:] == theirs[1:]
        )

    for name in taken:
        if here[name].dtype != there[name].dtype or (here[name].shape != there[name].shape and not by_row(name)):
            raise ConfigError(
                f"config.init_from: {name} is {there[name].dtype}{list(there[name].shape)} in {folder} and "
                f"{here[name].dtype}{list(here[name].shape)} here; make the model fit or leave it out with "
                "config.init_from.pattern"
            )
    origin = {name: name for name in taken} | _averages(folder, there, taken)
    plain = {origin[name]: here[name] for name in taken if not by_row(name)}
    abstract = {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding) for k, v in plain.items()}
    abstract |= {origin[name]: there[name] for name in taken if by_row(name)}  # as NumPy, the whole table on the host
    loaded = checkpoint.load_arrays(folder, abstract)
    found = {name: loaded[origin[name]] for name in taken}
    leaves = dict(here)
    for name in taken:
        leaves[name] = found[name]
        if by_row(name):
            mean = fresh_rows == "mean" and name.startswith("params/")  # a slot of a row that never moved is fresh
            leaves[name] = _merge_rows(here[name], found[name], new_rows, old_rows, mean)
    fresh = sorted(name for name in here if name.startswith("params/") and name not in taken)
    report(
        f"took {len(taken)} arrays from step {meta['step']} of {folder}; {len(fresh)} parameters stay fresh"
        + (f" ({', '.join(fresh[:5])}{', ...' if len(fresh) > 5 else ''})" if fresh else "")
        + ("" if same else f"; {len(new_rows)} of {len(tokenizer)} pieces were known there")
        + (f", the other {len(tokenizer) - len(new_rows)} start at the mean row" * (not same and fresh_rows == "mean"))
    )
    return jax.tree.unflatten(jax.tree.structure(state), list(leaves.values()))


def _averages(folder: Any, there: Mapping[str, Any], taken: Sequence[str]) -> dict[str, str]:
    """Where the averages of parameters are, in a checkpoint whose optimiser has begun to average."""
    for name in there:
        start, found, rest = name.partition(optim.STEPS)
        if found and not rest and int(checkpoint.load_arrays(folder, {name: there[name]})[name]) > 0:
            places = {each: start + optim.AVERAGED + each.removeprefix("params/") for each in taken}
            return {each: place for each, place in places.items() if each.startswith("params/") and place in there}
    return {}


def _slot_of(name: str, params: set[str]) -> bool:
    """Whether an optimiser leaf is a slot of one of the parameters, or a count."""
    parts = name.split("/")
    ends = {"params/" + "/".join(parts[start:]) for start in range(1, len(parts))}
    return bool(ends & params) or parts[-1] == "count"


def _merge_rows(fresh: jax.Array, old: np.ndarray, new_rows: np.ndarray, old_rows: np.ndarray, mean: bool) -> jax.Array:
    """The fresh table with the rows of known pieces replaced, and with `mean` all others too, where it lives."""

    def merge(table: jax.Array, index: jax.Array, rows: jax.Array, centre: jax.Array) -> jax.Array:
        start = jnp.broadcast_to(centre, table.shape) if mean else table
        return start.at[index].set(rows)

    centre = old.mean(axis=0, dtype=np.float64).astype(old.dtype)[None]
    return jax.jit(merge, out_shardings=fresh.sharding)(fresh, new_rows, old[old_rows], centre)

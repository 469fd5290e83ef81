"""Learning-rate schedules: a function `step -> lr` that works on integers and under `jax.jit`.

`step` is the number of updates already made, so the first update sees step 0. Lengths are texts, `"10000 steps"`,
`"2 epochs"` or `"1 percent"` of the run (a percentage is not rounded to whole steps).
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.config import ConfigError, Duration, did_you_mean

Schedule = Callable[[Any], Array]


def make_schedule(
    total_steps: int, lr: float, *, name: str = "constant", steps_per_epoch: int | float | None = None, **fields: Any
) -> Schedule:
    """The schedule called `name` with its peak at `lr`.

    Args:
      total_steps: length of the run in updates.
      lr: the largest value.
      name: a key of `SCHEDULES`.
      steps_per_epoch: for lengths in epochs; None knows none.
      **fields: that schedule's own arguments; those that are None keep their default.

    Raises:
      ConfigError: an unknown name or field, or a length that is none.
    """
    if name not in SCHEDULES:
        raise ConfigError(f"config.optim.schedule.name={name!r} is no schedule{did_you_mean(name, SCHEDULES)}")
    made = SCHEDULES[name]
    known = list(inspect.signature(made).parameters)[1:]
    fields = {key: value for key, value in fields.items() if value is not None}
    for key in fields:
        if key not in known:
            raise ConfigError(f"config.optim.schedule.{key} is not a field of {name!r}{did_you_mean(key, known)}")
    for key in ("warmup", "decay", "anneal", "total"):
        if key in fields:
            fields[key] = updates(fields[key], total_steps, f"optim.schedule.{key}", steps_per_epoch)
    if "starts" in fields:
        lengths = [updates(text, total_steps, "optim.schedule.starts", steps_per_epoch) for text in fields["starts"]]
        fields["starts"] = tuple(round(length) for length in lengths)
    shape = made(total_steps, **fields)
    return lambda step: lr * shape(jnp.asarray(step, jnp.float32))


def updates(text: str, total_steps: int, field: str, steps_per_epoch: int | float | None = None) -> float:
    """A length in updates, a real number: 28.43 percent of 7038 steps is 2000.9.

    Raises:
      ConfigError: it is no length, or one in a unit that is not known here.
    """
    length = Duration.parse(text, field)
    if length.unit == "steps":
        return length.amount
    if length.unit == "percent":
        return total_steps * length.amount / 100.0
    if length.unit == "epochs" and steps_per_epoch is not None:
        return length.amount * steps_per_epoch
    raise ConfigError(f"config.{field}={text!r} must be in steps or percent of the run")


def _ramp(step: Array, warmup: float) -> Array:
    """From 0 at step 0 to 1 at step `warmup`; 1 at once without a warm-up."""
    return jnp.minimum(step / warmup, 1.0) if warmup else jnp.ones_like(step)


def constant(total_steps: int, warmup: float = 0.0) -> Schedule:
    """1 after a linear warm-up."""
    del total_steps
    return lambda step: _ramp(step, warmup)


def warmup_polynomial(
    total_steps: int,
    warmup: float = 0.0,
    power: float = 1.0,
    end: float = 0.0,
    offset: int = 0,
    total: float | None = None,
) -> Schedule:
    """BERT's schedule: `step / warmup` while step < warmup, then `(1 - step / total)^power`.

    The decay counts from step 0, not from the end of the warm-up, so the rate drops at the boundary.

    Args:
      total_steps: the run, and where the decay ends unless `total` is given; the rate stays at `end` afterwards.
      warmup: updates of linear warm-up.
      power: 1 in google-research/bert, 0.5 in NVIDIA's LAMB recipe.
      end: the last value as a fraction of the peak.
      offset: added to the step; 1 where the original advances the schedule before its first update (NVIDIA), 0 where
        the first update has rate 0 (google-research/bert).
      total: where the decay ends, if not with this run: a phase of 900,000 steps of a schedule of 1,000,000.

    Reference: google-research/bert, optimization.py; Devlin et al. 2019, appendix A.2.
    """
    last = total_steps if total is None else total

    def shape(step: Array) -> Array:
        step = step + offset
        decay = (1.0 - end) * jnp.maximum(1.0 - step / last, 0.0) ** power + end
        return jnp.where(step < warmup, step / max(warmup, 1e-9), decay)

    return shape


def warmup_linear(
    total_steps: int, warmup: float = 0.0, end: float = 0.0, offset: int = 0, total: float | None = None
) -> Schedule:
    """`warmup_polynomial` with power 1: what google-research/bert trains with."""
    return warmup_polynomial(total_steps, warmup, 1.0, end, offset, total)


def ramped_linear(total_steps: int, warmup: float = 0.0) -> Schedule:
    """`1 - step / total` all the way, times a linear warm-up: what GPT is fine-tuned with.

    Reference: openai/finetune-transformer-lm, opt.py, warmup_linear.
    """
    return lambda step: _ramp(step, warmup) * jnp.maximum(1.0 - step / total_steps, 0.0)


def cosine(total_steps: int, warmup: float = 0.0, end: float = 0.0, from_start: bool = False) -> Schedule:
    """Linear warm-up, then half a cosine from 1 to `end` over the rest of the run.

    Args:
      total_steps: where the cosine ends.
      warmup: updates of linear warm-up.
      end: the last value as a fraction of the peak.
      from_start: the cosine is of the whole run, and the warm-up stands in place of its beginning: the rate drops a
        little where it ends (GPT's released code).

    Reference: Loshchilov and Hutter 2017 (one cycle, without restarts); openai/finetune-transformer-lm, opt.py.
    """
    first = 0.0 if from_start else warmup

    def shape(step: Array) -> Array:
        done = jnp.clip((step - first) / max(total_steps - first, 1.0), 0.0, 1.0)
        decay = end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return jnp.where(step <= warmup, _ramp(step, warmup), decay) if from_start else _ramp(step, warmup) * decay

    return shape


def inverse_sqrt(total_steps: int, warmup: float = 4000.0, width: int = 0) -> Schedule:
    """`min(step / warmup, sqrt(warmup / step))` of the update's number, counted from 1.

    Args:
      total_steps: not used; the schedule has no end.
      warmup: updates of linear warm-up.
      width: the model's width gives the values of the Transformer paper, `width^-0.5 min(step^-0.5, step warmup^-1.5)`
        (then `lr` is a factor, 1 or 2 in public code); 0 makes the peak 1.

    Reference: Vaswani et al. 2017, section 5.3.
    """
    del total_steps
    if warmup <= 0:
        raise ConfigError("config.optim.schedule.warmup of 'inverse_sqrt' must be longer than 0 steps")
    factor = (width * warmup) ** -0.5 if width else 1.0
    return lambda step: factor * jnp.minimum((step + 1.0) / warmup, jnp.sqrt(warmup / (step + 1.0)))


def warmup_stable_decay(
    total_steps: int, warmup: float = 0.0, decay: float | None = None, shape: str = "linear", end: float = 0.0
) -> Schedule:
    """Linear warm-up, a plateau, and a cool-down over the last `decay` updates (a tenth of the run by default).

    Args:
      total_steps: where the cool-down ends.
      warmup: updates of warm-up.
      decay: updates of the cool-down.
      shape: `"linear"`, or `"sqrt"` for `1 - sqrt(x)`.
      end: the last value as a fraction of the peak.

    Reference: Hu et al. 2024 (MiniCPM), section 4; Hägele et al. 2024 for the shapes.
    """
    if shape not in ("linear", "sqrt"):
        raise ConfigError(f"config.optim.schedule.shape={shape!r} is neither 'linear' nor 'sqrt'")
    length = total_steps / 10.0 if decay is None else decay
    if warmup + length > total_steps:
        raise ConfigError("config.optim.schedule: warmup and decay together are longer than the run")

    def value(step: Array) -> Array:
        done = jnp.clip((step - (total_steps - length)) / max(length, 1.0), 0.0, 1.0)
        fall = done if shape == "linear" else jnp.sqrt(done)
        return _ramp(step, warmup) * (1.0 - (1.0 - end) * fall)

    return value


def one_cycle(total_steps: int, div: float = 10.0, anneal: float | None = None) -> Schedule:
    """From `1 / div` up to 1 and down again, straight both ways, then to a hundredth of `1 / div`.

    Args:
      total_steps: the run, which is one cycle.
      div: the peak over the first value.
      anneal: updates of the last part, a tenth of the run by default; what is left is half up and half down.

    Reference: Smith 2018, "A disciplined approach to neural network hyper-parameters: Part 1"; fastai 0.7, sgdr.py,
    CircularLR_beta, whose momentum moves against the rate and is constant here.
    """
    tail = total_steps / 10.0 if anneal is None else anneal
    half = max((total_steps - tail) / 2.0, 1.0)

    def value(step: Array) -> Array:
        climbed = jnp.where(step <= half, step / half, 2.0 - step / half)
        left = jnp.clip((step - 2.0 * half) / max(tail, 1.0), 0.0, 1.0)
        return jnp.where(step <= 2.0 * half, 1.0 + jnp.maximum(climbed, 0.0) * (div - 1.0), 1.0 - 0.99 * left) / div

    return value


def slanted_triangular(
    total_steps: int, ratio: float = 32.0, cut: Sequence[float] = (0.1,), starts: Sequence[int] = ()
) -> Schedule:
    """From `1 / ratio` up to 1 in a share `cut` of the steps, straight, and down again in the rest; once or in cycles.

    Args:
      total_steps: where the last cycle ends.
      ratio: the peak over the first value; 32 in the paper.
      cut: the share of each cycle, the last for all that follow; 0.1 in the paper. Its steps are rounded down.
      starts: where a second cycle begins, a third, ...; none makes the run one cycle.

    Reference: Howard and Ruder 2018, equation 3; fastai 0.7, sgdr.py, CircularLR, whose `div` is the ratio and whose
    `cut_div` is the inverse of the share.
    """
    edges = [0, *starts, total_steps]
    if any(first >= last for first, last in itertools.pairwise(edges)):
        raise ConfigError(
            f"config.optim.schedule.starts: cycles that begin at steps {list(starts)} do not rise within the run of "
            f"{total_steps} steps; make it longer, or set other starts"
        )
    shares = [cut[min(place, len(cut) - 1)] for place in range(len(edges) - 1)]
    if not all(0 < share < 1 for share in shares):
        raise ConfigError(f"config.optim.schedule.cut={tuple(cut)} are not shares between 0 and 1")
    lengths = [last - first for first, last in itertools.pairwise(edges)]
    peaks = [max(int(length * share + 1e-6), 1) for length, share in zip(lengths, shares)]
    first, peak, length = (jnp.asarray(values, jnp.float32) for values in (edges[:-1], peaks, lengths))

    def value(step: Array) -> Array:
        place = jnp.searchsorted(first, step, side="right") - 1
        done = step - first[place]
        fall = 1.0 - (done - peak[place]) / jnp.maximum(length[place] - peak[place], 1.0)
        share = jnp.clip(jnp.where(done < peak[place], done / peak[place], fall), 0.0, 1.0)
        return (1.0 + share * (ratio - 1.0)) / ratio

    return value


def inverse(total_steps: int, rate: float = 1e-8, warmup: float = 0.0) -> Schedule:
    """`1 / (1 + rate * step)`, after a linear warm-up; it has no end.

    Reference: Bengio et al. 2003, section 3.
    """
    del total_steps
    return lambda step: _ramp(step, warmup) / (1.0 + rate * step)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "warmup_linear": warmup_linear,
    "warmup_polynomial": warmup_polynomial,
    "ramped_linear": ramped_linear,
    "cosine": cosine,
    "inverse_sqrt": inverse_sqrt,
    "warmup_stable_decay": warmup_stable_decay,
    "one_cycle": one_cycle,
    "slanted_triangular": slanted_triangular,
    "inverse": inverse,
}

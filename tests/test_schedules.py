"""Every schedule against a loop in plain Python."""

import math

import jax
import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.schedules import SCHEDULES, make_schedule

TOTAL, WARMUP, PEAK = 1000, 100, 2e-3


def bert(step):
    """optimization.py: polynomial decay over all steps, overridden by the ramp while step < warmup."""
    return PEAK * step / WARMUP if step < WARMUP else PEAK * (1 - min(step, TOTAL) / TOTAL)


def nvidia(step):
    """PolyWarmUpScheduler: one step ahead, warm-up as a proportion, square root of what is left."""
    progress = min(step + 1, TOTAL) / TOTAL
    return PEAK * progress / 0.2843 if progress < 0.2843 else PEAK * (1 - progress) ** 0.5


def cosine(step):
    if step < WARMUP:
        return PEAK * step / WARMUP
    done = min(1.0, (step - WARMUP) / (TOTAL - WARMUP))
    return PEAK * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def gpt(step):
    """opt.py: the warm-up while x <= warmup, else a cosine of the whole run."""
    x = min(step / TOTAL, 1.0)
    return PEAK * (x / 0.1 if x <= 0.1 else 0.5 * (1 + math.cos(math.pi * x)))


def gpt_tuned(step):
    """opt.py, warmup_linear: the warm-up while x <= warmup, times what is left of the run."""
    x = min(step / TOTAL, 1.0)
    return PEAK * (x / 0.1 if x <= 0.1 else 1.0) * (1 - x)


def noam(step):
    """Vaswani et al., equation 3, with the step counted from 1."""
    return 2.0 * 512**-0.5 * min((step + 1) ** -0.5, (step + 1) * WARMUP**-1.5)


def stable(step):
    left = (TOTAL - step) / 200
    return PEAK * min(1.0, step / WARMUP) * (1.0 if left > 1 else 1 - math.sqrt(1 - max(left, 0.0)))


def one_cycle(step):
    """fastai 0.7, CircularLR_beta.calc_lr: up, down, and a last tenth, with whole numbers of updates."""
    half = int(TOTAL * (1 - 10 / 100) / 2)
    if step > 2 * half:
        done = min(1.0, (step - 2 * half) / (TOTAL - 2 * half))
        return PEAK * (1 + done * (1 - 100) / 100) / 32
    climbed = 1 - (step - half) / half if step > half else step / half
    return PEAK * (1 + climbed * (32 - 1)) / 32


def slanted(step, length=TOTAL, cut_frac=0.1, ratio=32):
    """Howard and Ruder 2018, equation 3, and its first value once the run is over."""
    cut = math.floor(length * cut_frac)
    p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / cut_frac - 1))
    return PEAK * (1 + max(p, 0.0) * (ratio - 1)) / ratio


def cycles(step):
    """imdb_scripts/train_clas.py with CircularLR of sgdr.py: (8, 3), (8, 3) and (8, 8), each from its own start."""
    for start, nb, cut_div in ((0, 100, 3), (100, 155, 3), (255, TOTAL - 255, 8)):
        if step < start + nb or start == 255:
            iteration, cut_pt = step - start, nb // cut_div
            pct = 1 - (iteration - cut_pt) / (nb - cut_pt) if iteration > cut_pt else iteration / cut_pt
            return PEAK * (1 + max(pct, 0.0) * (8 - 1)) / 8
    raise AssertionError


def falling(step):
    """Bengio et al. 2003: e0 / (1 + r t)."""
    return PEAK / (1 + 1e-3 * step)


CASES = {
    "inverse": (falling, PEAK, {"name": "inverse", "rate": 1e-3}),
    "warmup_linear": (bert, PEAK, {"name": "warmup_linear", "warmup": "100 steps"}),
    "warmup_linear_percent": (bert, PEAK, {"name": "warmup_linear", "warmup": "10 percent"}),
    "lamb": (nvidia, PEAK, {"name": "warmup_polynomial", "warmup": "28.43 percent", "power": 0.5, "offset": 1}),
    "cosine": (cosine, PEAK, {"name": "cosine", "warmup": "100 steps", "end": 0.1}),
    "gpt": (gpt, PEAK, {"name": "cosine", "warmup": "100 steps", "from_start": True}),
    "gpt_tuned": (gpt_tuned, PEAK, {"name": "ramped_linear", "warmup": "10 percent"}),
    "noam": (noam, 2.0, {"name": "inverse_sqrt", "warmup": "100 steps", "width": 512}),
    "stable": (
        stable,
        PEAK,
        {"name": "warmup_stable_decay", "warmup": "100 steps", "decay": "20 percent", "shape": "sqrt"},
    ),
    "one_cycle": (one_cycle, PEAK, {"name": "one_cycle", "div": 32.0, "anneal": "10 percent"}),
    "slanted_triangular": (slanted, PEAK, {"name": "slanted_triangular"}),
    "slanted_triangular_cycles": (
        cycles,
        PEAK,
        {
            "name": "slanted_triangular",
            "ratio": 8.0,
            "cut": (1 / 3, 1 / 3, 1 / 8),
            "starts": ("1 epochs", "25.5 percent"),
            "steps_per_epoch": 100,
        },
    ),
    "constant": (lambda step: PEAK, PEAK, {"name": "constant"}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_oracle_at_every_step(case):
    oracle, lr, fields = CASES[case]
    schedule = jax.jit(jax.vmap(make_schedule(TOTAL, lr, **fields)))
    steps = np.arange(TOTAL + 50)
    np.testing.assert_allclose(schedule(steps), [oracle(int(step)) for step in steps], rtol=5e-5, atol=1e-9)


def test_every_schedule_has_a_case():
    assert set(SCHEDULES) == {fields["name"] for _, _, fields in CASES.values()}


def test_bert_starts_at_zero_and_drops_where_the_warm_up_ends():
    schedule = make_schedule(TOTAL, PEAK, name="warmup_linear", warmup="100 steps")
    assert float(schedule(0)) == 0.0
    assert float(schedule(99)) == pytest.approx(0.99 * PEAK)
    assert float(schedule(100)) == pytest.approx(0.90 * PEAK)
    assert float(schedule(TOTAL)) == 0.0


def test_a_phase_is_a_part_of_a_longer_schedule():
    whole = make_schedule(TOTAL, PEAK, name="warmup_linear", warmup="100 steps")
    phase = make_schedule(TOTAL // 10, PEAK, name="warmup_linear", warmup="100 steps", total="1000 steps")
    assert [float(phase(step)) for step in (50, 900, 950)] == [float(whole(step)) for step in (50, 900, 950)]


def test_peak_of_inverse_sqrt_is_lr():
    schedule = make_schedule(TOTAL, PEAK, name="inverse_sqrt", warmup="100 steps")
    assert float(schedule(99)) == pytest.approx(PEAK)
    assert float(schedule(399)) == pytest.approx(PEAK / 2)


def test_linear_cool_down_is_a_tenth_of_the_run_unless_said():
    schedule = make_schedule(TOTAL, PEAK, name="warmup_stable_decay", warmup="100 steps", decay=None)
    assert float(schedule(900)) == pytest.approx(PEAK)
    assert float(schedule(950)) == pytest.approx(PEAK / 2)


def test_a_million_steps_keep_their_resolution():
    schedule = jax.jit(make_schedule(1_000_000, 1e-4, name="warmup_linear", warmup="10000 steps"))
    assert float(schedule(999_999)) == pytest.approx(1e-10, rel=0.1)
    assert float(schedule(5_001)) > float(schedule(5_000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "linear"}, "did you mean 'warmup_linear'"),
        ({"name": "cosine", "warm_up": "1 steps"}, "schedule.warm_up is not a field"),
        ({"name": "cosine", "warmup": "2 epochs"}, "must be in steps or percent"),
        ({"name": "cosine", "warmup": "many steps"}, "config.optim.schedule.warmup"),
        ({"name": "inverse_sqrt", "warmup": "0 steps"}, "longer than 0 steps"),
        ({"name": "warmup_stable_decay", "shape": "cubic"}, "neither 'linear' nor 'sqrt'"),
        ({"name": "warmup_stable_decay", "warmup": "95 percent"}, "longer than the run"),
        ({"name": "slanted_triangular", "starts": ("9 steps", "9 steps")}, "do not rise within the run of 1000"),
        ({"name": "slanted_triangular", "cut": (1.5,)}, "are not shares between 0 and 1"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_schedule(TOTAL, PEAK, **fields)

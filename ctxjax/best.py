"""The best step of a run by a figure of its evaluations, and when to wait for a better one no longer.

config.best = "highest dev/f1"     # or "lowest heldout/lm": evaluator, slash, figure
config.patience = 3                # evaluations without a better figure that end the run; none by default
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ctxjax import metrics
from ctxjax.config import ConfigError, did_you_mean

WAYS = {"highest": 1.0, "lowest": -1.0}


def parse(text: str) -> tuple[str, float]:
    """`"highest dev/f1"` -> the figure, and 1.0 where more is better or -1.0 where less is.

    Raises:
      ConfigError: anything else.
    """
    way, _, metric = text.partition(" ")
    if way not in WAYS or not metric.partition("/")[2] or " " in metric:
        raise ConfigError(f"config.best={text!r} is not a direction and a figure such as 'highest dev/f1'")
    return metric, WAYS[way]


class Best:
    """What has been the best evaluation so far, and how many have come since.

    All of it is in the meta data of every checkpoint, so that a run that is stopped and continued ends where it would
    have ended.

    Args:
      text: as `config.best`; empty chooses nothing.
      patience: evaluations without a better figure after which the run has ended; 0 for never.
    """

    def __init__(self, text: str = "", patience: int = 0):
        self.text, self.patience = text, patience
        self.metric, self.sign = parse(text) if text else ("", 0.0)
        self.step: int | None = None
        self.figures: dict[str, float] = {}
        self.waited = 0

    def judge(self, step: int, figures: Mapping[str, float]) -> None:
        """Take note of an evaluation. Of two that are equal the first is the better; NaN is never best.

        Raises:
          ConfigError: the figure is not among those there are.
        """
        if not self.text:
            return
        if self.metric not in figures:
            raise ConfigError(f"config.best={self.text!r} is no figure{did_you_mean(self.metric, figures)}")
        if self._worth(figures) > self._worth(self.figures):
            self.step, self.figures, self.waited = step, dict(figures), 0
        else:
            self.waited += 1

    def _worth(self, figures: Mapping[str, float]) -> float:
        value = figures.get(self.metric, math.nan)
        return -math.inf if math.isnan(value) else self.sign * value

    @property
    def exhausted(self) -> bool:
        """Whether the run has waited as long as it may."""
        return 0 < self.patience <= self.waited

    def summary(self) -> dict[str, Any]:
        """JSON-able: for meta data and records."""
        figures = {name: metrics.plain(value) for name, value in self.figures.items()}
        return {"by": self.text, "step": self.step, "figures": figures, "waited": self.waited} if self.text else {}

    def restore(self, summary: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's; one by another figure is forgotten."""
        if self.text and summary.get("by") == self.text:
            self.step, self.waited = summary["step"], summary["waited"]
            self.figures = {name: float(value) for name, value in summary["figures"].items()}

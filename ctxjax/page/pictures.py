"""Figures of Matplotlib as pictures within a page."""

from __future__ import annotations

import base64
import html
import io
from typing import Any


def pyplot() -> Any:
    """Matplotlib without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def picture(figure: Any, title: str) -> str:
    """A figure as an element of the page, which holds all of it; the figure is closed."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    pyplot().close(figure)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'

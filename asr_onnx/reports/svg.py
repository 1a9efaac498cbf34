"""Matplotlib figures as SVG for HTML: the same bytes for the same numbers, text that stays text."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from asr_onnx.reports.printable import printable, without_controls

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1b1f24", "#57606a", "#d8dee4"
COLORS = {"dense": "#57606a", "pruned": "#c2410c", "repaired": "#0b62a8"}
SIZE = (5.2, 3.4)  # inches; text stays readable when this is shrunk to a phone's width

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "asr-onnx",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # names are no formulas
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


@dataclass(frozen=True)
class Chart:
    """A drawn chart: ``alt`` tells what it shows in words and numbers, ``svg`` is the picture."""

    key: str
    title: str
    alt: str
    caption: str
    svg: str


def draw(
    key: str,
    title: str,
    alt: str,
    caption: str,
    plot: Callable[[Axes], None],
    size: tuple[float, float] = SIZE,
) -> Chart:
    """Let ``plot`` fill one pair of axes; ``key`` makes the picture's ids unique in a page.

    ``size`` is (width, height) in inches; other widths than the usual one change the text's size.
    """
    import matplotlib
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache
    buffer = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's font will have it
        matplotlib.rcdefaults()  # a user's own style is not for reports
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Chart(
        key, title, alt, caption, _inline(without_controls(buffer.getvalue()), key, printable(alt))
    )


def _inline(text: str, key: str, alt: str) -> str:
    """Without what belongs to a file of its own: prolog, metadata, global style, fixed size."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    if box is None:
        raise ValueError("the SVG has no viewBox")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'class="chart" {box[0]} role="img" aria-label="{escape(alt)}">'
    )
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r'(\sid=")', rf"\g<1>{key}-", text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)

"""Results in notebooks: a part of a page with a style of its own, for light and dark themes.

It has no script and no heading, and all of its style is for what is inside.  Text and lines take
the notebook's color, so no theme has to be known; without any style it is still to be read.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from rich.table import Table

from asr_onnx.reports.page import render_page
from asr_onnx.reports.svg import COLORS, GRID, INK, MUTED, Chart
from asr_onnx.reports.views import view

ROWS = 20  # of a table
LETTERS = 160  # of a name
_LINES = 8  # notes

# Colors of charts as they are on white, and what is seen on black as well.
_BOTH = {INK: "currentColor", MUTED: "currentColor", GRID: "#80808059",
         COLORS["repaired"]: "#2f81c7", COLORS["pruned"]: "#d9541e"}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """A table as the template takes it: heads and cells, each with whether it is a number."""

    title: str
    caption: str
    heads: list[tuple[str, bool]]
    rows: list[list[tuple[str, bool]]]


def html(result: object) -> str:
    """A part of a page that shows a result; all names in it are escaped."""
    shown = view(result)
    lines, more = shown.notes[:_LINES], len(shown.notes) - _LINES
    return render_page(
        "fragment.html.j2",
        kicker=shown.kicker,
        verdict=shown.verdict,
        tiles=shown.tiles,
        notes=[*lines, *([f"And {more} more."] if more > 0 else [])],
        failed=shown.failed,
        tables=list(map(_rows, shown.tables)),
        charts=list(map(_for_both, shown.charts)),
    )


def _rows(table: Table) -> Rows:
    """A table for the terminal, of which the first rows are shown."""
    numbers = [column.justify == "right" for column in table.columns]
    heads = [_brief(column.header) for column in table.columns]
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    more = len(cells) - ROWS
    words = [str(table.caption)] if table.caption else []
    words += [f"and {more} more" if more > 0 else ""]
    return Rows(
        title=str(table.title),
        caption="; ".join(filter(None, words)),
        heads=list(zip(heads, numbers, strict=True)),
        rows=[list(zip(map(_brief, row), numbers, strict=True)) for row in cells[:ROWS]],
    )


def _brief(cell: object) -> str:
    text = str(cell)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


def _for_both(chart: Chart) -> dict[str, str]:
    """A chart for light and dark themes, whose ids are its own in a page of many results."""
    svg = chart.svg
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{mark}-", svg)
    for color, other in _BOTH.items():
        svg = svg.replace(f": {color}", f": {other}")
    return {"title": chart.title, "caption": chart.caption, "svg": svg}

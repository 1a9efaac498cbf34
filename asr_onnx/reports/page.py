"""The frame of HTML reports: one self-contained page, no script, no network, readable on a phone.

``base.html.j2`` is the frame for pages of any command, ``macros.html.j2`` has their common parts;
``render_page`` fills a template.  Numbers for people are written here, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from asr_onnx.provenance import __version__
from asr_onnx.reports.printable import without_controls

if TYPE_CHECKING:
    from jinja2 import Environment

Report = Mapping[str, Any]

NONE = "–"  # for what there is not


def render_page(template: str, **context: object) -> str:
    """A page from one of the package's templates; all values and control characters are escaped."""
    text = environment().get_template(template).render(version=__version__, **context)
    return without_controls(text)


@cache
def environment() -> Environment:
    """Templates, compiled once, with the filters for numbers: all of them show ``None``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("asr_onnx.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "share": share, "number": number, "ratio": ratio, "value": value, "middle": middle,
    }  # fmt: skip
    return found


def tile(label: str, value: str, note: str) -> dict[str, str]:
    """One of the boxes with a number in them."""
    return {"label": label, "value": value, "note": note}


def listed(words: Sequence[str]) -> str:
    """``a, b and c``"""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def sentence(line: str) -> str:
    """A line of the terminal as it begins a paragraph."""
    return line[:1].upper() + line[1:]


def share(x: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return NONE if x is None else f"{x:.{digits}%}"


def number(x: float | None, digits: int = 3) -> str:
    """Some significant digits below 1, as many decimals below 10."""
    if x is None or not math.isfinite(x):
        return NONE
    if abs(x) >= 10 or x == 0:
        return f"{x:.{digits + 1}g}"
    return f"{x:.{digits}f}" if abs(x) >= 1 else f"{x:#.{digits}g}"


def ratio(x: float | None) -> str:
    """A ratio of variances; ``None`` is how JSON holds an infinite one."""
    return "∞" if x in (None, math.inf) else number(x)


def middle(values: list[float | None]) -> str:
    """The median of those that are finite."""
    known = sorted(v for v in values if v is not None)
    if not known:
        return NONE
    half = len(known) // 2
    return number(known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2)


def given(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those of the options that are set: what may be given several times may be empty, too."""
    return {name: x for name, x in (options or {}).items() if x not in (None, [], ())}


def value(x: object) -> str:
    """An option's value, as one would type it."""
    if x is None or x == "":
        return NONE
    if isinstance(x, bool):
        return "yes" if x else "no"
    if isinstance(x, (list, tuple)):
        return ", ".join(map(str, x))
    return f"{x:g}" if isinstance(x, float) else str(x)

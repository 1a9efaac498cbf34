"""The accuracy-sparsity curve, and accuracy over work and time where models become narrower.

Pure functions of the dict in sweep.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from asr_onnx.reports.page import share
from asr_onnx.reports.svg import COLORS, SIZE, Chart, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Content = Mapping[str, Any]
Cell = Mapping[str, Any]

_SIZE = (6.4, 4.4)  # inches
_PAGE_SIZE = (SIZE[0], 4.0)  # inches; text stays readable on a phone
_RECIPES = ((COLORS["repaired"], "o"), ("#1a7f37", "D"), ("#8250df", "^"), ("#9a6700", "v"))
_BAND = "#b6c3cf"
_MEASURE = {
    "accuracy": "top-1 accuracy (%)",
    "agreement": "same answer as the dense model (%)",
    "cosine": "similarity to the dense outputs (cosine)",
}
_TITLE = {"accuracy": "Accuracy", "agreement": "Agreement", "cosine": "Similarity"}
# What curves go over, by the cells' share that tells it: in a title, along the axis, in words.
_AXES = {
    "zeros": (
        "sparsity",
        "zeros among the weights of the pruned sites (%)",
        "the share of zeros",
    ),
    "macs_share": (
        "work",
        "multiply-accumulates over the dense model's (%)",
        "the share of multiply-accumulates",
    ),
    "latency_ratio": (
        "time",
        "time of a run over the dense model's (%)",
        "the share of the dense model's time",
    ),
}


def told(content: Content, value: float, digits: int = 1) -> str:
    """A cell's value, or the bound of one: a share in percent, or a cosine as it is."""
    if content["metric"] == "cosine":
        return f"{value:.{digits + 2}f}"
    return share(value, digits)


def measured(content: Content) -> list[Cell]:
    """The cells that did not fail."""
    return [c for c in content["cells"] if "error" not in c]


def is_narrower(cell: Cell) -> bool:
    """Whether a cell's model has less to compute than the dense one, whatever the engine."""
    share = cell.get("macs_share")
    return share is not None and share < 1


def axes_of(content: Content) -> list[str]:
    """What there are curves over: zeros, and for narrower models work and time."""
    cells = measured(content)
    narrow = [c for c in cells if is_narrower(c)]
    timed = any(c.get("latency_ratio") is not None for c in narrow)
    found = {
        "zeros": len(narrow) < len(cells) or not cells,
        "macs_share": bool(narrow),
        "latency_ratio": timed,
    }
    return [axis for axis, wanted in found.items() if wanted]


def curves(content: Content) -> list[Chart]:
    """A curve over each of ``axes_of``, for a page."""
    return [curve(content, axis=axis) for axis in axes_of(content)]


def curve(content: Content, heading: bool = False, axis: str = "zeros") -> Chart:
    """Accuracy, or likeness to the dense model, over one of ``axes_of``: a line per recipe.

    Over zeros go models as wide as the dense one, over work and time those that are narrower.
    Patterns are single marks over zeros.  Bars are 95 % intervals, where there are any; the models
    that are pruned only are a curve of their own.  ``heading`` is for a file of its own, and writes
    the model's name above the picture; without, its size is for a page.
    """
    title, along, words = _AXES[axis]
    cells = _over(content, axis)
    dense = content["dense"]["accuracy"]
    recipes = list(dict.fromkeys(c["recipe"] for c in measured(content)))  # colours are theirs
    unit = 1 if content["metric"] == "cosine" else 100

    def plot(axes: Axes) -> None:
        if heading and axes.figure is not None:
            axes.figure.suptitle(PurePath(content["model"]).name, fontsize=12)
        if dense:
            axes.axhspan(100 * dense["low"], 100 * dense["high"], color=_BAND, alpha=0.4,
                         linewidth=0)  # fmt: skip
        level = unit * (dense["share"] if dense else 1.0)
        axes.axhline(level, color=COLORS["dense"], linewidth=1.2, linestyle="--", label="dense")
        _pruned(axes, cells, unit, axis)
        for number, recipe in enumerate(recipes):
            color, marker = _RECIPES[number % len(_RECIPES)]
            own = [c for c in cells if c["recipe"] == recipe]
            _line(axes, own, unit, recipe, color, marker, axis)
        axes.set_xlabel(along)
        axes.set_ylabel(_MEASURE[content["metric"]])
        low, high = axes.get_ylim()
        least = -1 if content["metric"] == "cosine" else 0
        axes.set_ylim(max(low, unit * (least - 0.03)), min(high, unit * 1.03))
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=3 if heading else 2,
            columnspacing=1.2,
        )

    return draw(
        f"curve-{axis}",
        f"{_TITLE[content['metric']]} over {title}",
        _alt(content, cells, recipes, axis, words),
        _caption(content, axis),
        plot,
        _SIZE if heading else _PAGE_SIZE,
    )


def _over(content: Content, axis: str) -> list[Cell]:
    """The cells that have a place on an axis."""
    cells = measured(content)
    if axis == "zeros":
        return [c for c in cells if not is_narrower(c)]
    return [c for c in cells if is_narrower(c) and c[axis] is not None]


def draw_file(content: Content, axis: str = "zeros") -> str:
    """A curve as an SVG file of its own, on white."""
    svg = curve(content, heading=True, axis=axis).svg
    width, height = (round(72 * side) for side in _SIZE)
    head = f'<svg width="{width}pt" height="{height}pt" style="background: white"'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{svg.removeprefix("<svg")}\n'


def _line(
    axes: Axes,
    cells: Sequence[Cell],
    unit: int,
    recipe: str,
    color: str,
    marker: str,
    axis: str,
) -> None:
    for patterned in (False, True):
        shown = [c for c in cells if _is_mark(c, axis) == patterned]
        if not shown:
            continue
        shown.sort(key=lambda c: float(c[axis]))
        y = [unit * c["value"] for c in shown]
        known = all(c["low"] is not None for c in shown)
        spread = [
            [v - unit * c["low"] for v, c in zip(y, shown, strict=True)],
            [unit * c["high"] - v for v, c in zip(y, shown, strict=True)],
        ] if known else None  # fmt: skip
        axes.errorbar(
            [100 * c[axis] for c in shown],
            y,
            yerr=spread,
            color=color,
            marker=marker,
            markerfacecolor="white" if patterned else color,
            linestyle="none" if patterned else "-",
            linewidth=1.6,
            markersize=6,
            elinewidth=1.2,
            capsize=3.5,
            label=f"{recipe}, {_patterns(shown)}" if patterned else recipe,
        )


def _is_mark(cell: Cell, axis: str) -> bool:
    """Whether a cell stands alone: a pattern that has but one share of zeros."""
    return axis == "zeros" and bool(cell["pattern"])


def _pruned(axes: Axes, cells: Sequence[Cell], unit: int, axis: str) -> None:
    """Each pruned model once: recipes share them."""
    points = {(c["sparsity"], c["pattern"], c.get("macs")): c for c in reversed(cells)}
    for patterned in (False, True):
        shown = [c for c in points.values() if _is_mark(c, axis) == patterned]
        if not shown:
            continue
        shown.sort(key=lambda c: float(c[axis]))
        axes.plot(
            [100 * c[axis] for c in shown],
            [unit * c["pruned"]["value"] for c in shown],
            color=COLORS["pruned"],
            marker="s",
            markerfacecolor="white" if patterned else COLORS["pruned"],
            linestyle="none" if patterned else "-",
            linewidth=1.4,
            markersize=5,
            label=f"pruned only, {_patterns(shown)}" if patterned else "pruned only (magnitude)",
        )


def _patterns(cells: Sequence[Cell]) -> str:
    return " ".join(dict.fromkeys(c["pattern"] for c in cells))


def _alt(
    content: Content, cells: Sequence[Cell], recipes: Sequence[str], axis: str, words: str
) -> str:
    """The curve in words and numbers."""
    dense = content["dense"]["accuracy"]

    def plain(value: float) -> str:
        return told(content, value).removesuffix("%")

    parts = [f"dense {plain(dense['share'])}"] if dense else []
    for recipe in recipes:
        values = (
            f"{plain(c['value'])} at {_place(c, axis)} (pruned only {plain(c['pruned']['value'])})"
            for c in cells
            if c["recipe"] == recipe
        )
        if told_of := ", ".join(values):
            parts.append(f"{recipe} {told_of}")
    return f"{_MEASURE[content['metric']].capitalize()} over {words}: {'; '.join(parts)}."


def _place(cell: Cell, axis: str) -> str:
    if _is_mark(cell, axis):
        return str(cell["pattern"])
    return f"{100 * cell[axis]:.4g} %"


def _caption(content: Content, axis: str) -> str:
    if content["metric"] == "accuracy":
        text = f"Top-1 on {content['samples']:,} labelled samples, with 95\u00a0% intervals."
    elif content["metric"] == "cosine":
        text = (
            f"Cosine of the outputs' deviations from their means with the dense model's, of the "
            f"output where it is lowest, on {content['samples']:,} calibration samples: 1 is the "
            "dense model, 0 a model that ignores its input."
        )
    else:
        text = (
            f"How often the answer is the dense model's on {content['samples']:,} calibration "
            "samples, with 95\u00a0% intervals where samples have one class each."
        )
    if axis == "latency_ratio":
        text += (
            f" Time is the median of a run, side by side with the dense model, in ONNX Runtime on "
            f"{content['device']}."
        )
    return (
        f"{text} Pruned only: the smallest weights zeroed and nothing repaired, whatever mask the "
        "recipe chose."
    )

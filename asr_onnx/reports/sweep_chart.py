"""The accuracy-sparsity curve.  A pure function of the dict in sweep.json."""

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
_TITLE = {
    "accuracy": "Accuracy over sparsity",
    "agreement": "Agreement over sparsity",
    "cosine": "Similarity over sparsity",
}


def told(content: Content, value: float, digits: int = 1) -> str:
    """A cell's value, or the bound of one: a share in percent, or a cosine as it is."""
    if content["metric"] == "cosine":
        return f"{value:.{digits + 2}f}"
    return share(value, digits)


def measured(content: Content) -> list[Cell]:
    """The cells that did not fail."""
    return [c for c in content["cells"] if "error" not in c]


def curve(content: Content, heading: bool = False) -> Chart:
    """Accuracy, or likeness to the dense model, over the share of zeros: a line per recipe.

    Patterns are single marks.  Bars are 95 % intervals, where there are any; the models that are
    pruned only are a curve of their own.  ``heading`` is for a file of its own, and writes the
    model's name above the picture; without, its size is for a page.
    """
    cells = measured(content)
    dense = content["dense"]["accuracy"]
    recipes = list(dict.fromkeys(c["recipe"] for c in cells))
    unit = 1 if content["metric"] == "cosine" else 100

    def plot(axes: Axes) -> None:
        if heading and axes.figure is not None:
            axes.figure.suptitle(PurePath(content["model"]).name, fontsize=12)
        if dense:
            axes.axhspan(100 * dense["low"], 100 * dense["high"], color=_BAND, alpha=0.4,
                         linewidth=0)  # fmt: skip
        level = unit * (dense["share"] if dense else 1.0)
        axes.axhline(level, color=COLORS["dense"], linewidth=1.2, linestyle="--", label="dense")
        _pruned(axes, cells, unit)
        for number, recipe in enumerate(recipes):
            color, marker = _RECIPES[number % len(_RECIPES)]
            _line(axes, [c for c in cells if c["recipe"] == recipe], unit, recipe, color, marker)
        axes.set_xlabel("zeros among the weights of the pruned sites (%)")
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
        "curve",
        _TITLE[content["metric"]],
        _alt(content, recipes),
        _caption(content),
        plot,
        _SIZE if heading else _PAGE_SIZE,
    )


def draw_file(content: Content) -> str:
    """The curve as an SVG file of its own, on white."""
    svg = curve(content, heading=True).svg
    width, height = (round(72 * side) for side in _SIZE)
    head = f'<svg width="{width}pt" height="{height}pt" style="background: white"'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{svg.removeprefix("<svg")}\n'


def _line(
    axes: Axes, cells: Sequence[Cell], unit: int, recipe: str, color: str, marker: str
) -> None:
    for patterned in (False, True):
        shown = [c for c in cells if bool(c["pattern"]) == patterned]
        if not shown:
            continue
        shown.sort(key=lambda c: float(c["zeros"]))
        y = [unit * c["value"] for c in shown]
        known = all(c["low"] is not None for c in shown)
        spread = [
            [v - unit * c["low"] for v, c in zip(y, shown, strict=True)],
            [unit * c["high"] - v for v, c in zip(y, shown, strict=True)],
        ] if known else None  # fmt: skip
        axes.errorbar(
            [100 * c["zeros"] for c in shown],
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


def _pruned(axes: Axes, cells: Sequence[Cell], unit: int) -> None:
    """Each pruned model once: recipes share them."""
    points = {(c["sparsity"], c["pattern"]): c for c in reversed(cells)}
    for patterned in (False, True):
        shown = [c for (_, pattern), c in points.items() if bool(pattern) == patterned]
        if not shown:
            continue
        shown.sort(key=lambda c: float(c["zeros"]))
        axes.plot(
            [100 * c["zeros"] for c in shown],
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


def _alt(content: Content, recipes: Sequence[str]) -> str:
    """The curve in words and numbers."""
    dense = content["dense"]["accuracy"]

    def plain(value: float) -> str:
        return told(content, value).removesuffix("%")

    parts = [f"dense {plain(dense['share'])}"] if dense else []
    for recipe in recipes:
        values = (
            f"{plain(c['value'])} at {c['pattern'] or format(100 * c['zeros'], '.4g') + ' %'} "
            f"(pruned only {plain(c['pruned']['value'])})"
            for c in measured(content)
            if c["recipe"] == recipe
        )
        parts.append(f"{recipe} {', '.join(values)}")
    return (
        f"{_MEASURE[content['metric']].capitalize()} over the share of zeros: {'; '.join(parts)}."
    )


def _caption(content: Content) -> str:
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
    return (
        f"{text} Pruned only: the smallest weights zeroed and nothing repaired, whatever mask the "
        "recipe chose."
    )

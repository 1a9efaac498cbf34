"""Charts of a report: what happens from site to site.  Pure functions of the report's dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_onnx.arrays import FloatArray
from asr_onnx.reports.svg import COLORS, INK, Chart, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Report = Mapping[str, Any]
Values = FloatArray

_WIDE = 8.0  # largest over smallest value from which on an axis is logarithmic
_MANY = 60  # sites from which on markers are too many


def charts(report: Report) -> list[Chart]:
    """All charts of a repair report, of which there are none without sites."""
    if not report["sites"]:
        return []
    return [variance(report), density(report), gammas(report), reliabilities(report)]


def variance(report: Report) -> Chart:
    """Output variance at each site, pruned and repaired, over the dense network's."""
    series = {name: _column(report, f"variance_{name}") for name in ("pruned", "repaired")}
    logarithmic = _wide(np.concatenate(list(series.values())))

    def plot(axes: Axes) -> None:
        if logarithmic:
            axes.set_yscale("log")
        axes.axhline(1, color=COLORS["dense"], linewidth=1.2, linestyle="--", label="dense (= 1)")
        for (name, values), marker in zip(series.items(), "so", strict=True):
            _line(axes, values, name, marker, logarithmic)
        axes.set_ylabel("output variance / dense variance")
        _plain_ticks(axes)
        if not logarithmic:
            axes.set_ylim(0, axes.get_ylim()[1])
        _number_sites(axes, len(report["sites"]))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    parts = [f"{name}: {_range(values)}" for name, values in series.items()]
    return draw(
        "variance",
        "Output variance, site by site",
        f"Output variance relative to the dense model at {_sites(report)}. {'. '.join(parts)}.",
        "1 is the dense model's level on the same images. Pruned: masked and not repaired. "
        + ("Logarithmic axis. " if logarithmic else "")
        + _edges(np.concatenate(list(series.values())), logarithmic),
        plot,
    )


def density(report: Report) -> Chart:
    """Share of the weights that is left at each site."""
    values = 100 * _column(report, "density")
    logarithmic = bool(np.any((values > 0) & (values < 2)))
    chosen = np.array([s["pruned"] for s in report["sites"]], bool)

    def plot(axes: Axes) -> None:
        axes.set_yscale("log" if logarithmic else "linear")
        low = 10 ** np.floor(np.log10(values[values > 0].min())) if logarithmic else 0.0
        axes.set_ylim(low, 130 if logarithmic else 104)
        x = _x(values)
        for which, name in ((chosen, "pruned sites"), (~chosen, "sites left dense")):
            if which.any():
                color = COLORS["repaired" if name == "pruned sites" else "dense"]
                width = 1.0 if len(x) > _MANY else 0.8
                axes.bar(x[which], values[which] - low, width, low, color=color, label=name)
        _mark_edge(axes, x[values == 0], "v", 0.0, COLORS["pruned"], "no weight left")
        axes.set_ylabel("weights left (%)")
        _plain_ticks(axes)
        _number_sites(axes, len(values))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return draw(
        "density",
        "Density, site by site",
        f"Share of the weights left, in percent, at {_sites(report)}: {_range(values)}.",
        "Share of a site's weights that is not zero." + (" Logarithmic axis." * logarithmic),
        plot,
    )


def gammas(report: Report) -> Chart:
    """Distribution over each site's channels of the factor on their weights."""
    return _spread(report, "gamma", "Scale factors (gamma)", "factor on a channel's weights", 1.0)


def reliabilities(report: Report) -> Chart:
    """Distribution over each site's channels of how far the measured factor is trusted, 0 to 1."""
    return _spread(report, "reliability", "Reliability", "reliability of the measured factor", None)


def _spread(report: Report, key: str, title: str, label: str, level: float | None) -> Chart:
    rows = [_numbers(s[key]) for s in report["sites"]]
    rows = [r[np.isfinite(r)] for r in rows]
    marks = np.array([np.quantile(r, (0, 0.25, 0.5, 0.75, 1)) if r.size else [np.nan] * 5
                      for r in rows])  # fmt: skip
    every = np.concatenate(rows)
    logarithmic = level is not None and _wide(every) and bool((every > 0).all())
    color = COLORS["repaired"]

    def plot(axes: Axes) -> None:
        x, many = _x(marks), len(rows) > _MANY
        if logarithmic:
            axes.set_yscale("log")
        if level is not None:
            axes.axhline(level, color=COLORS["dense"], linewidth=1.2, linestyle="--",
                         label="no change (1)")  # fmt: skip
        thick = max(1.0, min(7.0, 180 / len(rows)))
        axes.vlines(x, marks[:, 0], marks[:, 4], color=color, linewidth=0.8, label="all channels")
        axes.vlines(x, marks[:, 1], marks[:, 3], color=color, alpha=0.45, linewidth=thick,
                    label="middle half")  # fmt: skip
        axes.plot(x, marks[:, 2], color=INK, linestyle="none", marker="o",
                  markersize=1.6 if many else 3.5, label="median")  # fmt: skip
        if level is None:
            axes.set_ylim(min(0.0, float(every.min(initial=0.0))) - 0.02, 1.04)
        axes.set_ylabel(label)
        _plain_ticks(axes)
        _number_sites(axes, len(rows))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.0,
                    handlelength=1.5)  # fmt: skip

    return draw(
        key,
        f"{title}, site by site",
        f"{title}: {label}, distribution over the channels of {_sites(report)}; "
        f"medians: {_range(marks[:, 2])}.",
        f"{label.capitalize()}; all channels of a site, their middle half and their median."
        + (" Logarithmic axis." * logarithmic),
        plot,
    )


def _line(axes: Axes, values: Values, name: str, marker: str, logarithmic: bool) -> None:
    """A line with gaps where a value cannot be drawn, and a mark at the edge it lies beyond."""
    x, color = _x(values), COLORS[name]
    shown = np.isfinite(values) & ((values > 0) | (not logarithmic))
    size = 1.5 if len(x) > _MANY else 4.0
    drawn = np.where(shown, values, np.nan)
    axes.plot(x, drawn, color=color, marker=marker, markersize=size, linewidth=1.4, label=name)
    _mark_edge(axes, x[np.isinf(values)], "^", 1.0, color)
    if logarithmic:
        _mark_edge(axes, x[values == 0], "v", 0.0, color)


def _mark_edge(
    axes: Axes, x: Values, marker: str, height: float, color: str, label: str | None = None
) -> None:
    if x.size:
        axes.plot(x, np.full(x.size, height), color=color, marker=marker, linestyle="none",
                  markersize=6, transform=axes.get_xaxis_transform(), clip_on=False,
                  label=label)  # fmt: skip


def _edges(values: Values, logarithmic: bool) -> str:
    """What the marks at the edges mean, where there are any."""
    words = []
    if logarithmic and (values == 0).any():
        words.append("▼ at the lower edge: no variance at all.")
    if np.isinf(values).any():
        words.append("▲ at the upper edge: the dense output does not vary, the ratio is infinite.")
    return " ".join(words)


def _plain_ticks(axes: Axes) -> None:
    """0.01 rather than powers of ten; a short logarithmic axis has labels at 2 and 5, too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        if high / low < 300:
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _number_sites(axes: Axes, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    few = max(0.0, 1.5 - count / 2)  # a single bar is not a wall
    axes.set_xlim(0.4 - few, count + 0.6 + few)
    axes.set_xlabel("site, in execution order (numbers as in the table)")
    if count <= 12:
        axes.set_xticks(range(1, count + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.grid(visible=False, axis="x")


def _x(values: Values) -> Values:
    return np.arange(1.0, len(values) + 1)


def _column(report: Report, key: str) -> Values:
    return _numbers([s[key] for s in report["sites"]])


def _numbers(values: Sequence[float | None]) -> Values:
    """``None`` is how JSON holds an infinite ratio."""
    return np.array([np.inf if v is None else v for v in values], np.float64)


def _wide(values: Values) -> bool:
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(positive.size and max(positive.max(), 1) > _WIDE * min(positive.min(), 1))


def _range(values: Values) -> str:
    """First, lowest and highest value in words."""
    known = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(known).all():
        return "no finite values"
    low, high = int(np.nanargmin(known)), int(np.nanargmax(known))
    return (
        f"lowest {known[low]:.3g} at site {low + 1}, highest {known[high]:.3g} at site {high + 1}, "
        f"{values[-1]:.3g} at the last"
    )


def _sites(report: Report) -> str:
    count = len(report["sites"])
    return f"{count} sites in execution order" if count > 1 else "the only site"

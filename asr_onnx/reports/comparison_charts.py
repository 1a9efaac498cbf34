"""Charts of a comparison, a row for each model.  Pure functions of the comparison's dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asr_onnx.reports.costs import FIGURES
from asr_onnx.reports.matches import worst_error
from asr_onnx.reports.page import number, sentence
from asr_onnx.reports.svg import COLORS, INK, MUTED, SIZE, Chart, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Content = Mapping[str, Any]
Model = Mapping[str, Any]

_METRICS = 4  # of the user's, beyond which the table has to do
_NAME = 20  # characters of a name that an axis has room for
_LIGHT = "#b6c3cf"
_COSTS = {  # name of a ratio: color, marker
    "macs": (COLORS["repaired"], "o"),
    "parameters": ("#1a7f37", "D"),
    "activation_bytes": ("#8250df", "^"),
    "size": ("#9a6700", "v"),
    "time": (COLORS["pruned"], "s"),
}


def charts(content: Content) -> list[Chart]:
    """What there are numbers for: accuracy, agreement or error, metrics, cost, size, latency."""
    drawn = [accuracy(content), agreement(content), error(content), *metrics(content)]
    return [c for c in (*drawn, cost(content), size(content), latency(content)) if c]


def accuracy(content: Content) -> Chart | None:
    """Top-1, and top-k where there is one, with 95 % intervals; the dense model as reference."""
    models = [content["dense"], *content["models"]]
    if not all(m["top1"] for m in models):
        return None
    k = content["topk"]
    series = [("top1", "top-1", "o", 0.0)]
    if k:
        series = [("top1", "top-1", "o", -0.16), ("topk", f"top-{k}", "s", 0.16)]

    def plot(axes: Axes) -> None:
        for key, label, marker, offset in series:
            dense = content["dense"][key]
            if key == "top1":
                axes.axvspan(100 * dense["low"], 100 * dense["high"], color=_LIGHT, alpha=0.4,
                             linewidth=0)  # fmt: skip
                axes.axvline(100 * dense["share"], color=COLORS["dense"], linewidth=1.2,
                             linestyle="--", label="dense, top-1")  # fmt: skip
            fill = COLORS["repaired"] if key == "top1" else "white"
            for row, m in enumerate(models):
                a = m[key]
                spread = [[100 * (a["share"] - a["low"])], [100 * (a["high"] - a["share"])]]
                axes.errorbar(100 * a["share"], row + offset, xerr=spread, fmt=marker,
                              color=COLORS["repaired"], markerfacecolor=fill, markersize=6,
                              elinewidth=1.4, capsize=3.5,
                              label=None if row else label)  # fmt: skip
        low = min(100 * m[key]["low"] for m in models for key, *_ in series)
        high = max(100 * m[key]["high"] for m in models for key, *_ in series)
        room = max(0.04 * (high - low), 0.2)
        axes.set_xlim(low - room, high + room)
        axes.set_xlabel("accuracy (%), 95 % interval")
        _name_rows(axes, models)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.2)

    words = (
        f"{_role(n, m)} {100 * m['top1']['share']:.1f} ({100 * m['top1']['low']:.1f} to "
        f"{100 * m['top1']['high']:.1f})"
        for n, m in enumerate(models)
    )
    return _draw(
        "accuracy",
        "Accuracy",
        f"Top-1 accuracy in percent, with 95 % intervals: {'; '.join(words)}.",
        f"Share of {content['samples']:,} samples with the right class, with 95\u00a0% intervals. "
        "The band is the interval of the dense model's top-1.",
        plot,
        models,
        0.55 if k else 0.42,
    )


def agreement(content: Content) -> Chart | None:
    """Share of the dense model's answer."""
    models = content["models"]
    if any(m["agreement"] is None for m in models):
        return None
    return _bars(
        "agreement",
        "Agreement with the dense model",
        "same answer as the dense model (%)",
        "How often the answer is the dense model's; of the output where that is least often.",
        [100 * m["agreement"] for m in models],
        models,
        (0.0, 100.0),
    )


def error(content: Content) -> Chart | None:
    """How far the worst output is off, where there is no agreement to show."""
    models = content["models"]
    errors = [worst_error(m["outputs"]) for m in models]
    known = [e for e in errors if e is not None and math.isfinite(e)]
    if all(m["agreement"] is not None for m in models) or len(known) < len(models):
        return None
    return _bars(
        "error",
        "Error of the outputs",
        "error, in units of the dense output's spread",
        "Of the output that is furthest off; lower is better: 0 is the dense model, 1 an output "
        "that ignores its input.",
        known,
        models,
        (0.0, max(*known, 1.0)),
    )


def metrics(content: Content) -> list[Chart]:
    """A chart for each of the user's first metrics."""
    models = [content["dense"], *content["models"]]
    found = []
    for n, name in enumerate(list(content["dense"]["metrics"] or ())[:_METRICS]):
        values = [(m["metrics"] or {}).get(name) for m in models]
        known = [float(v) for v in values if v is not None]
        if len(known) == len(models):
            bounds = min(*known, 0.0), max(*known, 0.0)
            found.append(
                _bars(
                    f"metric{n}",
                    f"Metric {_short(name)}",
                    _short(name),
                    "Of the metric script; higher is better.",
                    known,
                    models,
                    bounds,
                    dense_first=True,
                )
            )
    return found


def _bars(
    key: str,
    title: str,
    axis: str,
    caption: str,
    values: Sequence[float],
    models: Sequence[Model],
    bounds: tuple[float, float],
    dense_first: bool = False,
) -> Chart:
    """A bar for each model; ``bounds`` are the least the axis shows."""
    shown = [f"{v:.1f}" if bounds[1] == 100 else number(v) for v in values]
    roles = [_role(n if dense_first else 1, m) for n, m in enumerate(models)]
    words = (f"{role} {v}" for role, v in zip(roles, shown, strict=True))
    room = 0.15 * ((bounds[1] - bounds[0]) or 1.0)

    def plot(axes: Axes) -> None:
        colors = [COLORS["dense"] if r == "dense" and dense_first else COLORS["repaired"]
                  for r in roles]  # fmt: skip
        bars = axes.barh(range(len(models)), values, 0.6, color=colors)
        axes.bar_label(bars, shown, padding=3)
        axes.set_xlim(bounds[0] - (room if bounds[0] < 0 else 0), bounds[1] + room)
        if bounds[1] == 100:
            axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel(axis)
        _name_rows(axes, models, dense_first=dense_first)

    alt = axis[:-4] + ", in percent" if axis.endswith(" (%)") else axis
    return _draw(key, title, f"{sentence(alt)}: {'; '.join(words)}.", caption, plot, models)


def cost(content: Content) -> Chart | None:
    """What each figure of a model is to the dense model's, as far as they are known."""
    models = content["models"]
    found = {head: ([m["ratios"][n] for m in models], n) for n, (head, _) in FIGURES.items()}
    if all(m["latency"] for m in models):
        found["time"] = [m["latency"]["ratio"] for m in models], "time"
    shown = {head: f for head, f in found.items() if None not in f[0]}
    if not shown:
        return None

    def plot(axes: Axes) -> None:
        axes.axvline(1, color=COLORS["dense"], linewidth=1.2, linestyle="--")
        apart = 0.7 / len(shown)
        for n, (head, (values, name)) in enumerate(shown.items()):
            color, marker = _COSTS[name]
            rows = [row + apart * (n - (len(shown) - 1) / 2) for row in range(len(models))]
            axes.plot(values, rows, color=color, marker=marker, linestyle="none", markersize=6,
                      label=head)  # fmt: skip
        largest = max(1.0, *(v for values, _ in shown.values() for v in values))
        axes.set_xlim(0, 1.08 * largest)
        axes.set_xlabel("× the dense model's")
        _name_rows(axes, models, dense_first=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1.2)

    words = (
        f"{m['name']} {', '.join(f'{head} {values[n]:.2f}' for head, (values, _) in shown.items())}"
        for n, m in enumerate(models)
    )
    return _draw(
        "cost",
        "Cost",
        f"Over the dense model's: {'; '.join(words)}.",
        "What a model needs over what the dense model needs; zeros alone change none of it, unless "
        "an engine has sparse kernels.",
        plot,
        models,
        0.7,
    )


def size(content: Content) -> Chart:
    """Bytes of the files, as they are and compressed."""
    models = [content["dense"], *content["models"]]
    unit, scale = _unit(
        max(m["footprint"]["size"] for m in models),
        (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)),
    )
    series = {
        "file": [m["footprint"]["size"] / scale for m in models],
        "zipped": [m["footprint"]["compressed"] / scale for m in models],
    }
    words = (
        f"{_role(n, m)} {number(series['file'][n])}, zipped {number(series['zipped'][n])}"
        for n, m in enumerate(models)
    )

    def plot(axes: Axes) -> None:
        for (label, values), offset, color in zip(
            series.items(), (-0.19, 0.19), (_LIGHT, COLORS["repaired"]), strict=True
        ):
            rows = [n + offset for n in range(len(models))]
            bars = axes.barh(rows, values, 0.36, color=color, label=label)
            axes.bar_label(bars, [number(v) for v in values], padding=3, fontsize=10)
        axes.set_xlim(0, 1.14 * max(max(v) for v in series.values()))
        axes.set_xlabel(f"size ({unit})")
        _name_rows(axes, models)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return _draw(
        "size",
        "Size",
        f"Size in {unit}: {'; '.join(words)}.",
        "The files as they are, and compressed by zlib: zeros do not make the file itself smaller.",
        plot,
        models,
        0.55,
    )


def latency(content: Content) -> Chart | None:
    """Median time of a run with its quartiles."""
    models = [content["dense"], *content["models"]]
    times = [m["latency"] for m in models]
    if not all(times):
        return None
    unit, scale = time_unit(content)
    medians = [t["median"] / scale for t in times]
    spread = [
        [(t["median"] - t["low"]) / scale for t in times],
        [(t["high"] - t["median"]) / scale for t in times],
    ]
    words = (f"{_role(n, m)} {number(medians[n])}" for n, m in enumerate(models))

    def plot(axes: Axes) -> None:
        colors = [COLORS["dense"], *[COLORS["repaired"]] * (len(models) - 1)]
        axes.barh(range(len(models)), medians, 0.6, xerr=spread, color=colors, ecolor=INK,
                  capsize=3.5)  # fmt: skip
        for row, t in enumerate(times):
            axes.annotate(number(medians[row]), (t["high"] / scale, row), (6, 0),
                          textcoords="offset points", va="center")  # fmt: skip
        axes.set_xlim(0, 1.18 * max(t["high"] for t in times) / scale)
        axes.set_xlabel(f"time of a run ({unit}), median and quartiles")
        _name_rows(axes, models)

    batch, rounds = times[0]["batch"], times[0]["rounds"]
    return _draw(
        "latency",
        "Latency",
        f"Median time of a run in {unit}: {'; '.join(words)}.",
        f"A run takes a batch of {batch}; {rounds} rounds, all models side by side, in ONNX "
        f"Runtime on {content['device']}.",
        plot,
        models,
    )


def time_unit(content: Content) -> tuple[str, float]:
    """Name and seconds of the unit that suits the slowest of the models, all of them timed."""
    models = (content["dense"], *content["models"])
    return _unit(
        max(m["latency"]["high"] for m in models), (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    )


def _draw(
    key: str,
    title: str,
    alt: str,
    caption: str,
    plot: Callable[[Axes], None],
    models: Sequence[Model],
    row: float = 0.42,
) -> Chart:
    """A chart as high as its rows need, ``row`` inches each."""
    return draw(key, title, alt, caption, plot, (SIZE[0], 1.2 + row * max(len(models), 2)))


def _name_rows(axes: Axes, models: Sequence[Model], dense_first: bool = True) -> None:
    """Models from top to bottom, in the tables' order."""
    names = [_short(m["name"]) for m in models]
    if dense_first:
        names[0] = "dense"
    axes.set_yticks(range(len(models)), names, color=INK)
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=MUTED)
    axes.grid(visible=False, axis="y")


def _role(number: int, model: Model) -> str:
    return str(model["name"]) if number else "dense"


def _short(name: str) -> str:
    """With an ellipsis in the middle where it is long; the end tells models apart."""
    clean = "".join(c if c.isprintable() else "�" for c in name)
    if len(clean) <= _NAME:
        return clean
    return f"{clean[: _NAME // 3]}…{clean[-(_NAME - _NAME // 3 - 1) :]}"


def _unit(largest: float, units: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """The first unit that the largest value has one of, else the last."""
    found = list(units)
    return next((u for u in found if largest >= u[1]), found[-1])

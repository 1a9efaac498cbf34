"""What models cost, side by side: figures by name and what they are to the dense model's, in words.

Of models as JSON holds them: ``footprint``, ``cost`` and, where it was measured, ``latency``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asr_onnx.reports.page import NONE

Model = Mapping[str, Any]


def count_text(count: float | None) -> str:
    """``40.6 M``"""
    if count is None:
        return NONE
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:g}"


def bytes_text(count: float | None) -> str:
    """``996.0 KiB``"""
    if count is None:
        return NONE
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:g} B"


def times_text(ratio: float | None) -> str:
    """``0.50``, of a figure over the dense model's."""
    return NONE if ratio is None else f"{ratio:.2f}"


# Figures that are compared: what they are called, and how they are told.
FIGURES: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "macs": ("MACs", count_text),
    "parameters": ("parameters", count_text),
    "activation_bytes": ("activations", bytes_text),
    "size": ("file", bytes_text),
}
CAPTION = (
    "MACs (multiply-accumulates of convolutions and matrix products) and activations (most that "
    "live at a time, nodes one by one) are per sample"
)
SPARSE = "non-zero MACs: with weights that are not zero; only sparse kernels save the others"


HEADS = {**{n: head for n, (head, _) in FIGURES.items()}, "effective_macs": "non-zero MACs"}


def told(name: str, figure: float | None) -> str:
    """A figure in words, by its name in ``figures``."""
    return FIGURES[name][1](figure) if name in FIGURES else count_text(figure)


def figures(model: Model) -> dict[str, float | None]:
    """The figures of ``FIGURES``, and ``effective_macs``, which only sparse kernels reach."""
    return {**model["cost"], "size": model["footprint"]["size"]}


def ratios(model: Model, dense: Model) -> dict[str, float | None]:
    """Each figure over the dense model's; ``None`` where one of them is not known."""
    return over(figures(model), figures(dense))


def over(
    after: Mapping[str, float | None], before: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Figures over those of the same names; ``None`` where one of them is not known."""
    return {name: _over(figure, before[name]) for name, figure in after.items()}


def _over(figure: float | None, other: float | None) -> float | None:
    return figure / other if figure is not None and other else None


def change(cost: Mapping[str, Mapping[str, float | None]]) -> str:
    """What became of MACs and parameters, ``before`` and ``after``, in a line of 80 columns."""
    before, after = cost["before"], cost["after"]
    if before["macs"] == after["macs"]:
        macs, left, parameters = (
            told(n, after[n]) for n in ("macs", "effective_macs", "parameters")
        )
        return f"MACs {macs} as before, non-zero MACs {left}, parameters {parameters}"
    return ", ".join(
        f"{HEADS[n]} {told(n, before[n])} → {told(n, after[n])} "
        f"(× {times_text(_over(after[n], before[n]))})"
        for n in ("macs", "parameters")
    )

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


def figures(model: Model) -> dict[str, float | None]:
    """The figures of ``FIGURES``, and ``effective_macs``, which only sparse kernels reach."""
    return {**model["cost"], "size": model["footprint"]["size"]}


def ratios(model: Model, dense: Model) -> dict[str, float | None]:
    """Each figure over the dense model's; ``None`` where one of them is not known."""
    return {
        name: _over(figure, other)
        for (name, figure), other in zip(
            figures(model).items(), figures(dense).values(), strict=True
        )
    }


def _over(figure: float | None, other: float | None) -> float | None:
    return figure / other if figure is not None and other else None

"""The cells of a sweep as rows of plain values: of sweep.csv, and of a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Content = Mapping[str, Any]

_ACCURACY = ("correct", "total", "share", "low", "high")
_PLAIN = (
    "recipe", "sparsity", "pattern", "zeros", "value", "low", "high", "agreement", "cosine",
    "relative_error", "macs_share", "parameters_share", "latency_ratio", "seconds",
    "worse_than_pruning", "error",
)  # fmt: skip
COLUMNS = (
    "metric",
    *_PLAIN,
    "pruned_value",
    "pruned_agreement",
    *(f"{of}accuracy_{name}" for of in ("", "pruned_") for name in _ACCURACY),
)


def rows(content: Content) -> list[dict[str, Any]]:
    """A row for each cell, with all ``COLUMNS``; what there is not is ``None``."""
    return [_row(content["metric"], cell, cell.get("pruned", {})) for cell in content["cells"]]


def _row(metric: str, cell: Content, pruned: Content) -> dict[str, Any]:
    found = {"metric": metric, **{name: cell.get(name) for name in _PLAIN}}
    found |= {f"pruned_{name}": pruned.get(name) for name in ("value", "agreement")}
    for of, values in (("", cell), ("pruned_", pruned)):
        accuracy = values.get("accuracy") or {}
        found |= {f"{of}accuracy_{name}": accuracy.get(name) for name in _ACCURACY}
    return found

"""Tell what a sweep found: a table and sentences for the terminal, of the dict in sweep.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from asr_onnx.reports.costs import times_text
from asr_onnx.reports.page import share
from asr_onnx.reports.sweep_chart import is_narrower, measured, told

Content = Mapping[str, Any]

_HEADS = {  # title, and column
    "accuracy": ("Top-1 accuracy", "top-1"),
    "agreement": ("Same answer as dense", "same"),
    "cosine": ("Similarity to the dense outputs", "cosine"),
}


def table(content: Content) -> Table:
    """The curve, a row for each cell; recipes apart."""
    accurate, (title, head) = content["metric"] == "accuracy", _HEADS[content["metric"]]
    held_out = "held-out " if content["data"]["holdout"] else ""
    where = "labelled samples" if accurate else f"{held_out}calibration samples"
    narrow = any(map(is_narrower, measured(content)))
    found = Table(
        title=f"{title}, {content['samples']} {where}",
        caption="pruned only: by magnitude, not repaired"
        + ("; MACs, time: over the dense model's; ?: not reliable" if narrow else ""),
    )
    found.add_column("recipe", overflow="fold")
    less = ("MACs", "time") if narrow else ("zeros",)
    last = () if narrow else ("seconds",)  # 80 columns do not hold all
    columns = ("asked", *less, head, "95 %", "pruned only", *last)
    for name in columns:
        broken = narrow and name in ("asked", "pruned only")
        found.add_column(name, justify="right", no_wrap=not broken)
    dense = content["dense"]["accuracy"]
    if dense:
        blank = [""] * (1 + len(less))
        found.add_row("dense", *blank, share(dense["share"]), _interval(dense))
    before = None
    for cell in content["cells"]:
        if cell["recipe"] != before:
            found.add_section()
        before = cell["recipe"]
        if "error" in cell:
            found.add_row(before, point(cell), "–", "failed")
            continue
        found.add_row(
            before,
            point(cell),
            *(cost_cells(cell) if narrow else (share(cell["zeros"]),)),
            told(content, cell["value"]),
            _interval(cell),
            told(content, cell["pruned"]["value"]),
            *(() if narrow else (f"{cell['seconds']:.1f}",)),
        )
    return found


def remarks(content: Content) -> Iterator[str]:
    """A line for each cell in which repair did worse than plain pruning with the same mask."""
    for cell in measured(content):
        if cell["worse_than_pruning"]:
            yield (
                f"{cell['recipe']} at {point(cell)} did worse than plain pruning: "
                f"{cell['worse_than_pruning']}"
            )


def point(cell: Mapping[str, Any]) -> str:
    """The sparsity, the pattern and the share of multiply-accumulates that were asked for."""
    parts = [cell["pattern"]]
    if cell["sparsity"] is not None:
        parts.append(f"{100 * cell['sparsity']:g} %")
    if cell.get("macs") is not None:
        parts.append(f"{100 * cell['macs']:g} % MACs")
    return " ".join(filter(None, parts))


def cost_cells(cell: Mapping[str, Any]) -> tuple[str, str]:
    """What is left of the dense model's multiply-accumulates, and of its time where measured."""
    time = times_text(cell.get("latency_ratio"))
    if cell.get("latency_reliable") is False:
        time += " ?"
    return times_text(cell.get("macs_share")), time


def _interval(numbers: Mapping[str, Any]) -> str:
    if numbers["low"] is None:
        return "–"
    return f"{share(numbers['low'])} … {share(numbers['high'])}"

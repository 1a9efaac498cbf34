"""Tell what a sweep found: a table and sentences for the terminal, of the dict in sweep.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from asr_onnx.reports.page import share
from asr_onnx.reports.sweep_chart import measured, told

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
    found = Table(
        title=f"{title}, {content['samples']} {where}",
        caption="pruned only: by magnitude, not repaired",
    )
    found.add_column("recipe", overflow="fold")
    columns = ("asked", "zeros", head, "95 %", "pruned only", "seconds")
    for name in columns:
        found.add_column(name, justify="right", no_wrap=True)
    dense = content["dense"]["accuracy"]
    if dense:
        found.add_row("dense", "", "", share(dense["share"]), _interval(dense), "", "")
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
            share(cell["zeros"]),
            told(content, cell["value"]),
            _interval(cell),
            told(content, cell["pruned"]["value"]),
            f"{cell['seconds']:.1f}",
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
    """The sparsity or the pattern that was asked for."""
    return cell["pattern"] or f"{100 * cell['sparsity']:g} %"


def _interval(numbers: Mapping[str, Any]) -> str:
    if numbers["low"] is None:
        return "–"
    return f"{share(numbers['low'])} … {share(numbers['high'])}"

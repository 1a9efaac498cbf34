"""Tell what would be pruned: tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from asr_onnx.graph.fold import mean_goes_to
from asr_onnx.pruning.inspection import Inspection


def tables(inspection: Inspection) -> list[Table]:
    """The sites, and what is left alone."""
    sites = Table(title="Pruned and repaired")
    sites.add_column("node", overflow="fold")
    sites.add_column("weight", overflow="fold")
    for name in ("shape", "groups", "zeros", "mean goes to"):
        sites.add_column(name, justify="right")
    for s in inspection.sites:
        value = s.weight.value
        sites.add_row(
            s.node or "–",
            s.name,
            "×".join(map(str, value.shape)),
            str(s.groups),
            f"{s.zeros / value.size:.1%}",
            mean_goes_to(s),
        )
    if not inspection.skipped:
        return [sites]
    skipped = Table(title="Left alone")
    for name in ("node", "operator", "why"):
        skipped.add_column(name, overflow="fold")
    for item in inspection.skipped:
        skipped.add_row(item.name, item.op, item.reason)
    return [sites, skipped]

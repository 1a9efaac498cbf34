"""Tell what would be pruned: tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from asr_onnx.graph.fold import mean_goes_to
from asr_onnx.pruning.inspection import Inspection
from asr_onnx.reports.costs import bytes_text, count_text


def tables(inspection: Inspection) -> list[Table]:
    """The sites, and what is left alone."""
    sites = Table(title="Pruned and repaired")
    sites.add_column("node", overflow="fold")
    sites.add_column("weight", overflow="fold")
    for name in ("shape", "groups", "zeros", "MACs", "mean goes to"):
        sites.add_column(name, justify="right")
    for s in inspection.sites:
        value = s.weight.value
        sites.add_row(
            s.node or "–",
            s.name,
            "×".join(map(str, value.shape)),
            str(s.groups),
            f"{s.zeros / value.size:.1%}",
            count_text(inspection.macs[s.name]),
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


def whole(inspection: Inspection) -> str:
    """What the model costs, in one sentence."""
    cost = inspection.cost
    parts = [f"{cost.parameters:,} parameters"]
    if cost.macs is None:
        parts.append("unknown multiply-accumulates (sizes are open: try --input-shapes)")
    else:
        parts.append(f"{count_text(cost.macs)} multiply-accumulates (MACs)")
    if cost.activation_bytes is not None:
        parts.append(f"{bytes_text(cost.activation_bytes)} of activations at a time")
    return f"the whole model, per sample: {', '.join(parts)}"

"""Tell what would be pruned: tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from asr_onnx.graph.fold import mean_goes_to
from asr_onnx.pruning.inspection import ChannelGroup, Inspection
from asr_onnx.reports.costs import bytes_text, count_text
from asr_onnx.reports.page import NONE

_SHOWN = 3  # nodes of a group


def tables(inspection: Inspection) -> list[Table]:
    """The sites, the channels they make if those are asked about, and what is left alone."""
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
    shown = [sites] if inspection.sites or not inspection.quantised else []
    shown += [_groups(inspection.groups)] if inspection.groups else []
    shown += [_quantised(inspection)] if inspection.quantised else []
    known = {layer.node for layer in inspection.quantised}
    others = [item for item in inspection.skipped if item.name not in known]
    if not others:
        return shown
    skipped = Table(title="Left alone")
    for name in ("node", "operator", "why"):
        skipped.add_column(name, overflow="fold")
    for item in others:
        skipped.add_row(item.name, item.op, item.reason)
    return [*shown, skipped]


def _quantised(inspection: Inspection) -> Table:
    """Layers whose weights are integers, zeros counted on these."""
    table = Table(title="Quantised already", caption="integers: in front → behind")
    for name in ("node", "weight"):
        table.add_column(name, overflow="fold")
    for name in ("shape", "groups", "stored", "integers", "zeros", "MACs"):
        table.add_column(name, justify="right")
    for layer in inspection.quantised:
        table.add_row(
            layer.node,
            layer.weight,
            "×".join(map(str, layer.shape)),
            str(layer.groups),
            layer.stored,
            f"{layer.reads or NONE} → {layer.makes or NONE}",
            f"{layer.zeros / layer.size:.1%}",
            count_text(inspection.macs[layer.output]),
        )
    return table


def already(inspection: Inspection) -> str:
    """That layers are quantised, in one sentence."""
    layers = inspection.quantised
    weights, zeros = sum(x.size for x in layers), sum(x.zeros for x in layers)
    return (
        f"{len(layers)} layers are quantised already, {weights:,} weights, {zeros:,} of them zero: "
        "prune and repair before quantisation"
    )


def _groups(groups: Sequence[ChannelGroup]) -> Table:
    """Channels that stand or fall together, by what makes them."""
    table = Table(
        title="Channels",
        caption="atoms: the least that can go one by one; several channels where they are tied",
    )
    for name in ("made by", "read by"):
        table.add_column(name, overflow="fold")
    for name in ("channels", "atoms"):
        table.add_column(name, justify="right")
    table.add_column("stay whole", overflow="fold")
    for g in groups:
        table.add_row(_some(g.made_by), _some(g.read_by), f"{g.count:,}", f"{g.atoms:,}", g.why)
    return table


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


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

"""What would be pruned and repaired, and what not and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from rich.table import Table

from asr_onnx.graph import model_file as models
from asr_onnx.graph.records import Site, Skipped
from asr_onnx.graph.sites import find_sites
from asr_onnx.pruning.choose import rows_are_rescaled


@dataclass(frozen=True)
class Inspection:
    """The sites of a model, the nodes left alone, and whether BatchNormalization was folded."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    folded: bool

    @property
    def weights(self) -> int:
        """Number of weights that can be pruned."""
        return sum(s.weight.value.size for s in self.sites)

    @property
    def zeros(self) -> int:
        """How many of them are zero already."""
        return sum(s.zeros for s in self.sites)


def inspect(proto: onnx.ModelProto, ops: Sequence[str] = ("Conv",)) -> Inspection:
    """Look at a model without running it.  Raises ``ModelError`` when nothing can be pruned."""
    models.check_in_memory(proto)
    survey = find_sites(proto, ops)
    return Inspection(survey.sites, survey.skipped, rows_are_rescaled(survey.sites))


def tables(inspection: Inspection) -> list[Table]:
    """The sites, and what is left alone, for the terminal."""
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


def mean_goes_to(site: Site) -> str:
    """Where a correction of the channel mean is folded, as ``fold`` does it."""
    if site.norm and site.norm.mean.storage:
        return "BatchNormalization"
    return "bias" if site.carrier else "new bias"

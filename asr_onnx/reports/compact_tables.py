"""Tell what became narrower: lines and a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from asr_onnx.repairing.compacting import Compacted
from asr_onnx.reports.costs import change


def summary(found: Compacted, written: Path) -> Iterator[str]:
    """What went, what the model costs now, and where it is."""
    yield f"{found.removed:,} channels removed: {written}"
    if found.widths:
        yield change({"before": asdict(found.cost_before), "after": asdict(found.cost)})
    if found.held:
        yield held(found)


def held(found: Compacted) -> str:
    """How many channels stay although they could do without the data, in one sentence."""
    return f"{found.held:,} more do not depend on the data, but no bias can do what they do"


def table(found: Compacted) -> Table:
    """Channels of each node that makes fewer now."""
    result = Table(title="Narrower")
    result.add_column("node", overflow="fold")
    for name in ("channels", "now"):
        result.add_column(name, justify="right")
    for width in found.widths:
        result.add_row(", ".join(width.producers), f"{width.before:,}", f"{width.after:,}")
    return result

"""Tell which layers sparse INT8 kernels can take: rows for JSON, a table, commands to try it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from asr_onnx.pruning.eligibility import Eligibility
from asr_onnx.reports.costs import count_text
from asr_onnx.reports.page import NONE

Row = Mapping[str, Any]

TITLE = "Sparse INT8 kernels of TensorRT"
CAPTION = "as far as the file tells: TensorRT times dense and sparse kernels, and takes the faster"
HEADS = ("layer", "operator", "shape", "precision", "2:4", "sparse INT8 kernels")
_LOG = "--profilingVerbosity=detailed --dumpLayerInfo"


def rows(layers: Sequence[Eligibility]) -> list[dict[str, Any]]:
    """The layers as JSON holds them."""
    return [
        {
            "node": e.layer.node,
            "op": e.layer.op,
            "weight": e.layer.weight,
            "shape": list(e.layer.shape),
            "stored": e.layer.stored,
            "reads": e.layer.reads,
            "makes": e.layer.makes,
            "holds": e.layer.holds,
            "eligible": e.eligible,
            "could": e.could,
            "lasting": list(e.lasting),
            "missing": list(e.missing),
        }
        for e in layers
    ]


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, under ``HEADS``."""
    integers = f"{row['reads'] or NONE} → {row['makes'] or NONE}"
    told, answer = ("no", row["lasting"]) if row["lasting"] else ("not yet", row["missing"])
    return (
        row["node"],
        row["op"],
        "×".join(map(str, row["shape"])),
        integers if row["reads"] or row["makes"] else row["stored"],
        "yes" if row["holds"] else "no",
        "yes" if row["eligible"] else f"{told}: {'; '.join(answer)}",
    )


def table(found: Sequence[Row], macs: Sequence[int | None]) -> Table:
    """The rows with the multiply-accumulates of each."""
    result = Table(title=TITLE, caption=CAPTION)
    for head in HEADS:
        result.add_column(head, overflow="fold")
    result.add_column("MACs", justify="right")
    for row, count in zip(found, macs, strict=True):
        result.add_row(*cells(row), count_text(count))
    return result


def summary(found: Sequence[Row]) -> str:
    """How many layers can use them, in one sentence."""
    eligible = sum(r["eligible"] for r in found)
    more = sum(r["could"] for r in found) - eligible
    text = f"{eligible} of {len(found)} layers can use sparse INT8 kernels of TensorRT"
    return f"{text}; {more} more could, with 2:4 and int8 on both sides" if more else text


def commands(model: Path, found: Sequence[Row]) -> Iterator[str]:
    """What builds the engine and checks it, line by line; nothing of it is run."""
    name, plan = shlex.quote(str(model)), shlex.quote(str(model.with_suffix(".plan")))
    integers = any(r["reads"] or r["makes"] for r in found)
    weakly = "--int8 --fp16" if integers else "--fp16"
    build = f"trtexec --onnx={name} --saveEngine={plan} --sparsity=enable"
    yield "To build and check where TensorRT and a GPU are (printed, not run):"
    yield "  # TensorRT 11, and 10 strongly typed: precision is what the file says"
    yield f"  {build} --stronglyTyped {_LOG}"
    yield "  # TensorRT 10, weakly typed"
    yield f"  {build} {weakly} {_LOG}"
    yield "  # in the log, (Sparsity): layers that were eligible, and those with a sparse kernel"
    yield "  # outputs against ONNX Runtime's"
    yield f"  polygraphy run {name} --onnxrt --trt --strongly-typed --sparse-weights"
    if not all(r["stored"].startswith("int") for r in found):
        yield "  # the zeros of weights that are float"
        yield f"  polygraphy inspect sparsity {name}"

"""What a sweep found, as its folder holds it: JSON and CSV for machines, the plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_onnx.displayed import Displayed
from asr_onnx.files import write_text
from asr_onnx.provenance import dumps, versions
from asr_onnx.reports.sweep_chart import axes_of, draw_file
from asr_onnx.reports.sweep_rows import COLUMNS, rows
from asr_onnx.sweeps.source import Opened
from asr_onnx.sweeps.work import Record, Task, place, prune_options

Content = Mapping[str, Any]


class SweepResult(dict[str, Any], Displayed):
    """What sweep.json holds, see docs/sweep.md; a dict that notebooks show."""


def to_dict(
    opened: Opened,
    tasks: Sequence[Task],
    found: Mapping[str, Record],
    failed: Mapping[str, str],
) -> SweepResult:
    """The sweep as JSON can hold it; ``found`` and ``failed`` go by the keys of ``tasks``.

    A cell that failed has an ``error`` instead of numbers.
    """
    pruned = {prune_options(t.options): t.key for t in tasks if t.kind == "pruned"}
    dense = next((found[t.key] for t in tasks if t.kind == "dense"), None)
    cells = []
    for task in tasks:
        if task.kind != "cell":
            continue
        base = pruned[prune_options(task.options)]
        if task.key in found and base in found:
            cells.append({**found[task.key], "pruned": found[base]})
        else:
            cells.append({**place(task.options), "error": failed.get(task.key) or failed[base]})
    source, labelled = opened.source, opened.labelled
    content: dict[str, Any] = {
        "asr_onnx_sweep": 2,
        "versions": versions(),
        "model": str(source.model),
        "files": dict(opened.files),
        "data": {
            "path": opened.calib,
            **{n: getattr(source, n) for n in ("seed", "num_samples", "batch_size", "holdout")},
            "test": str(source.data) if source.data else None,
            "test_preprocessing": labelled.preprocessing if labelled else None,
        },
        "preprocessing": opened.preprocessing,
        "device": str(opened.device),
        "metric": opened.metric,
        "samples": len(labelled.samples) if labelled else opened.checked,
        "labels": labelled.labels.source if labelled else None,
        "dense": {"accuracy": dense["accuracy"] if dense else None},
        "cells": cells,
    }
    return SweepResult(content)


def write_results(folder: Path, content: Content) -> None:
    """Write sweep.json, sweep.csv and the plots; raises ``AsrError`` naming one that fails."""
    write_text(folder / "sweep.json", dumps(content))
    write_text(folder / "sweep.csv", to_csv(content))
    first, *others = axes_of(content)
    write_text(folder / "sweep.svg", draw_file(content, first))
    for axis in others:
        write_text(folder / f"sweep.{axis}.svg", draw_file(content, axis))


def to_csv(content: Content) -> str:
    """A line for each cell; what there is not is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(content))
    return file.getvalue()

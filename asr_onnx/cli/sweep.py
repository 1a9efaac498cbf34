"""``asr-onnx sweep``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asr_onnx.cli.options import FILE, MODEL, QUIET, command, group, of, option, record
from asr_onnx.cli.progress import reporting
from asr_onnx.cli.resolved import resolved
from asr_onnx.cli.terminal import Terminal, complain
from asr_onnx.data.source import CalibrationOptions, ImageOptions, LabelOptions
from asr_onnx.errors import AsrError
from asr_onnx.machine import Execution
from asr_onnx.options import PruneOptions
from asr_onnx.reports import sweep_tables
from asr_onnx.reports.files import write_reports
from asr_onnx.sweeps.grid import SITES, GridOptions, run
from asr_onnx.sweeps.source import Source


@command(repeats=True)
@MODEL
@group(
    "Output",
    option("-o", "--output", type=FILE, required=True, metavar="OUTDIR", help="Folder."),
    option("--force", is_flag=True, help="Use a folder that has other things in it."),
    QUIET,
)
@group("The grid", of(GridOptions, "sparsities", "patterns", "macs", "recipes"))
@group(
    "Data",
    of(CalibrationOptions, "calib", "num_samples", "batch_size", "holdout", "seed"),
    of(
        LabelOptions,
        data="Labelled data to tell the accuracy on: as --calib, but not used for the repair.  "
        "[default: none, and the curve is of the agreement with the dense model on held-out "
        "calibration samples, or where no class axis is known of the outputs' cosine]",
    ),
    of(CalibrationOptions, "data_loader_script", "load_inputs", "input_shapes"),
)
@group("Preprocessing", of(ImageOptions))
@group("What to prune", of(PruneOptions, *SITES))
@group(
    "Machine",
    of(GridOptions, "jobs", "cells_per_walk"),
    of(
        Execution,
        memory_limit="For live tensors of all jobs together, e.g. 2GiB; beyond it they go to "
        "disk.  [default: half of the free memory]",
    ),
)
def sweep(model: Path, output: Path, force: bool, quiet: bool, **settings: Any) -> None:
    """Draw the accuracy-sparsity curve of MODEL: repair it by each recipe at each sparsity.

    OUTDIR gets sweep.json, sweep.csv, sweep.svg and the page sweep.html, and every finished cell:
    started again, the sweep does only what is missing.  No model is written; repair does that.
    """
    if isinstance(settings["sparsities"], str):
        text = settings["sparsities"]
        raise click.UsageError(f"--sparsities '{text}' is not numbers separated by commas")
    if settings["patterns"] == ():
        raise click.UsageError("--patterns is empty: give some, such as 2:4, or leave it out")
    source = record(Source, settings, model=model, execution=record(Execution, settings))
    source.check()
    grid = record(GridOptions, settings)
    common = record(PruneOptions, {n: settings[n] for n in SITES})
    out, log = Terminal(quiet=quiet), Terminal(stderr=True, quiet=quiet)

    def tell(line: str) -> None:
        log.say(line)

    with reporting(log, quiet) as progress:
        content = run(source, grid, common, output, force, progress, tell, resolved())
    write_reports([output / "sweep.html"], content)
    out.print(sweep_tables.table(content))
    for line in (*sweep_tables.remarks(content), f"→ {output}"):
        out.say(line)
    failed = [c for c in content["cells"] if "error" in c]
    for cell in failed:
        place = f"{cell['recipe']} at {sweep_tables.point(cell)}"
        complain(f"failed: {place}: {cell['error']}")
    if failed:
        count = len(content["cells"])
        raise AsrError(f"{len(failed)} of {count} cells failed; all others are in '{output}'")

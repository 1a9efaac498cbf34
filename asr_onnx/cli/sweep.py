"""``asr-onnx sweep``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from asr_onnx.cli.options import MODEL, PROVIDERS, data_options, label_options, pick, site_options
from asr_onnx.cli.progress import reporting
from asr_onnx.cli.types import BYTES, NUMBERS, WORDS
from asr_onnx.data.source import source_problem
from asr_onnx.errors import AsrError
from asr_onnx.options import RECIPES as KNOWN
from asr_onnx.options import RepairOptions
from asr_onnx.reports.files import write_reports
from asr_onnx.sweeps import results as sweep_report
from asr_onnx.sweeps.grid import CELLS_PER_WALK, RECIPES, SPARSITIES, grid, run
from asr_onnx.sweeps.source import Source

FILE = click.Path(path_type=Path)


@click.command()
@MODEL
@data_options
@click.option(
    "--data",
    type=FILE,
    help="Labelled data to tell the accuracy on: as --calib, but not used for the repair.  "
    "[default: none, and the curve is of the agreement with the dense model on held-out "
    "calibration samples]",
)
@label_options
@click.option(
    "--sparsities",
    type=NUMBERS,
    help="Shares of the weights to zero, separated by commas.  "
    f"[default: {','.join(map(str, SPARSITIES))}, without --patterns]",
)
@click.option("--patterns", type=WORDS, help="N:M patterns, separated by commas, e.g. 2:4.")
@click.option(
    "--recipes",
    type=WORDS,
    default=",".join(RECIPES),
    show_default=True,
    help=f"Of {', '.join(KNOWN)}; see repair --help.",
)
@site_options
@PROVIDERS
@click.option(
    "--memory-limit",
    type=BYTES,
    help="For live tensors of all jobs together, e.g. 2GiB; beyond it they go to disk.  "
    "[default: half of the free memory]",
)
@click.option(
    "--cells-per-walk",
    type=click.IntRange(1),
    default=CELLS_PER_WALK,
    show_default=True,
    help="Cells of a recipe that are repaired together.  More share more of the work, take more "
    "memory, and are lost together when the sweep is interrupted.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Groups of cells at work at a time, each in a process of its own.",
)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUTDIR", help="Folder.")
@click.option("--force", is_flag=True, help="Use a folder that has other things in it.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def sweep(
    model: Path,
    sparsities: tuple[float, ...] | str | None,
    patterns: tuple[str, ...] | None,
    recipes: tuple[str, ...],
    cells_per_walk: int,
    jobs: int,
    output: Path,
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Draw the accuracy-sparsity curve of MODEL: repair it by each recipe at each sparsity.

    OUTDIR gets sweep.json, sweep.csv, sweep.svg and the page sweep.html, and every finished cell:
    started again, the sweep does only what is missing.  No model is written; repair does that.
    """
    if problem := source_problem(settings):
        raise click.UsageError(problem)
    if isinstance(sparsities, str):
        raise click.UsageError(f"--sparsities '{sparsities}' is not numbers separated by commas")
    if patterns == ():
        raise click.UsageError("--patterns is empty: give some, such as 2:4, or leave it out")
    cells = grid(recipes, sparsities or (), patterns or (), **pick(RepairOptions, settings))
    out, log = Console(quiet=quiet), Console(stderr=True, quiet=quiet)
    with reporting(log, quiet) as progress:
        content = run(
            Source(model, **pick(Source, settings)),
            cells,
            output,
            jobs,
            cells_per_walk,
            force,
            progress,
            lambda line: log.print(line, highlight=False, markup=False, soft_wrap=True),
        )
    write_reports([output / "sweep.html"], content)
    out.print(sweep_report.table(content))
    for line in sweep_report.remarks(content):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    out.print(f"→ {output}", highlight=False, markup=False, soft_wrap=True)
    failed = [c for c in content["cells"] if "error" in c]
    for cell in failed:
        place = f"{cell['recipe']} at {sweep_report.point(cell)}"
        click.echo(f"failed: {place}: {cell['error']}", err=True)
    if failed:
        raise AsrError(f"{len(failed)} of {len(cells)} cells failed; all others are in '{output}'")

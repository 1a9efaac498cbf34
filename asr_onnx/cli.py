"""The command line: parse, call, print."""

from __future__ import annotations

import io
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from asr_onnx import __version__, inspection, report
from asr_onnx import model as models
from asr_onnx.cli_compare import compare
from asr_onnx.cli_options import (
    MODEL,
    PROVIDERS,
    data_options,
    output_options,
    prune_options,
    solver_options,
)
from asr_onnx.cli_types import BYTES, WORDS
from asr_onnx.data_source import open_data, source_problem
from asr_onnx.errors import AsrError, QualityError
from asr_onnx.options import (
    OPS,
    PruneOptions,
    RepairOptions,
    one_of,
)
from asr_onnx.progress import reporting
from asr_onnx.pruning import prune as prune_model
from asr_onnx.recipes import options_for, stronger
from asr_onnx.repair import repair as repair_model
from asr_onnx.report_files import check_reports, read_report, write_reports
from asr_onnx.result import is_worse
from asr_onnx.sanity import check_preprocessing
from asr_onnx.sessions import choose_device


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="asr-onnx")
def cli() -> None:
    """Prune an exported ONNX CNN and repair its accuracy without training."""


cli.add_command(compare)


@cli.command()
@MODEL
@data_options
@click.option("--sparsity", type=float, help="Share of the weights to zero.  [default: 0.9]")
@click.option(
    "--dense",
    type=click.Path(path_type=Path),
    help="MODEL is pruned already: its zeros are the mask, and this is the model it came from.",
)
@prune_options
@solver_options
@PROVIDERS
@click.option(
    "--memory-limit",
    type=BYTES,
    help="For live tensors, e.g. 2GiB; beyond it they go to "
    "disk.  [default: half of the free memory]",
)
@click.option(
    "--report",
    "report_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write a report: .html to be read, .json for machines; repeatable.",
)
@output_options
def repair(
    model: Path,
    dense: Path | None,
    sparsity: float | None,
    output: Path | None,
    report_paths: tuple[Path, ...],
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Zero the smallest weights of MODEL, then repair what that broke on calibration data."""
    if problem := source_problem(settings):
        raise click.UsageError(problem)
    if dense and sparsity is not None:
        raise click.UsageError("--dense takes the mask from MODEL: leave out --sparsity")
    if sparsity is not None and settings["pattern"]:
        raise click.UsageError("--pattern and --sparsity exclude each other")
    options = options_for(sparsity=sparsity, **_pick(RepairOptions, settings))
    target = output or model.with_suffix(".sparse.onnx")
    models.check_target(target, model, force)
    check_reports(report_paths, target, force)
    out, log = Console(quiet=quiet), Console(stderr=True, quiet=quiet)
    loaded = models.load(model)
    reference = models.load(dense) if dense else None
    data = open_data(loaded.proto, model, settings)
    calibration = data.calibration
    if data.note:
        log.print(data.note, highlight=False, markup=False, soft_wrap=True)
    log.print(
        f"calibration: {calibration.num_solve + calibration.num_held_out} samples, "
        f"{data.preprocessing}",
        highlight=False,
    )
    device = choose_device(options.providers)
    warning = check_preprocessing((reference or loaded).proto, calibration, device)
    if warning:
        log.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    with reporting(log, quiet) as progress:
        result = repair_model(
            loaded.proto,
            calibration,
            options,
            dense=reference.proto if reference else None,
            progress=progress,
        )
    worse = is_worse(result.pruned_outputs, result.repaired_outputs)
    if force or not worse:
        models.save(result.model, target, loaded.external)
    if report_paths:
        content = report.to_dict(
            result,
            model=str(model),
            output=str(target) if force or not worse else None,
            preprocessing=data.preprocessing,
            warnings=[warning] if warning else [],
            data={
                "path": data.path,
                "seed": settings["seed"],
                "num_samples": settings["num_samples"],
                "batch_size": settings["batch_size"],
                "holdout": settings["holdout"],
            },
            files=report.sha256([model, *([dense] if dense else []), target]),
        )
        write_reports(report_paths, content, calibration)
    out.print(report.site_table(result))
    out.print(report.output_table(result))
    out.print(
        f"{result.sparsity:.2%} zeros, {result.seconds:.1f} s on {result.device}, "
        f"{result.solve_images} images solved on, {result.held_out_images} held out → "
        f"{target if force or not worse else 'nothing written'}",
        highlight=False,
    )
    if hint := stronger(options):
        out.print(hint, highlight=False)
    if worse and not force:
        raise QualityError(
            f"repair did worse than plain pruning on held-out images ({worse}): no model "
            "is written; give more or better calibration images, less sparsity, or --force"
        )


@cli.command()
@MODEL
@click.option("--sparsity", type=float, help="Share of the weights to zero.  [default: 0.9]")
@prune_options
@output_options
def prune(model: Path, output: Path | None, force: bool, quiet: bool, **settings: Any) -> None:
    """Zero the smallest weights of MODEL and repair nothing."""
    if settings["sparsity"] is not None and settings["pattern"]:
        raise click.UsageError("--pattern and --sparsity exclude each other")
    options = PruneOptions(**_pick(PruneOptions, settings))
    target = output or model.with_suffix(".pruned.onnx")
    models.check_target(target, model, force)
    loaded = models.load(model)
    pruned = prune_model(loaded.proto, options)
    models.save(pruned, target, loaded.external)
    found = inspection.inspect(pruned)
    Console(quiet=quiet).print(
        f"{found.zeros:,} of {found.weights:,} weights are zero → {target}", highlight=False
    )


@cli.command()
@MODEL
@click.option("--ops", type=WORDS, default="Conv", show_default=True, help="Operators to look at.")
def inspect(model: Path, ops: tuple[str, ...]) -> None:
    """List what would be pruned and repaired in MODEL, and what not and why."""
    for op in ops:
        one_of("operator", op, OPS)
    found = inspection.inspect(models.load(model).proto, ops)
    console = Console()
    for table in inspection.tables(found):
        console.print(table)
    console.print(
        f"{len(found.sites)} sites, {found.weights:,} weights, {found.zeros:,} of them zero; "
        f"BatchNormalization {'folded or absent' if found.folded else 'kept'}",
        highlight=False,
    )


@cli.command()
@click.argument("report_path", metavar="REPORT", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write.  [default: REPORT with .html]",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def render(report_path: Path, output: Path | None, force: bool, quiet: bool) -> None:
    """Write REPORT, a JSON report of repair, as an HTML page (without pictures of samples)."""
    target = output or report_path.with_suffix(".html")
    check_reports([target], report_path, force)
    write_reports([target], read_report(report_path))
    Console(quiet=quiet).print(f"→ {target}", highlight=False, markup=False, soft_wrap=True)


def _pick(kind: type[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given and are fields of an options record."""
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in settings.items() if k in names and v is not None}


def main() -> None:
    """Run the command line; user errors are one line, with the exit code the error carries."""
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a code page may lack an arrow
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AsrError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        if os.environ.get("ASR_ONNX_DEBUG"):
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (ASR_ONNX_DEBUG=1 shows where)", 1)


def _terminated(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)  # unwinds, so that temporary files go


def _fail(message: str, code: int) -> NoReturn:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)

"""The command line: parse, call, print."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from asr_onnx import __version__
from asr_onnx.cli.compare import compare
from asr_onnx.cli.options import MODEL, output_options, pick, prune_options
from asr_onnx.cli.repair import repair
from asr_onnx.cli.sweep import sweep
from asr_onnx.cli.types import WORDS
from asr_onnx.errors import AsrError
from asr_onnx.graph import model_file as models
from asr_onnx.options import OPS, PruneOptions, one_of
from asr_onnx.pruning import inspection
from asr_onnx.pruning.choose import prune as prune_model
from asr_onnx.reports.files import check_reports, read_report, write_reports

SUFFIX = ".pruned.onnx"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="asr-onnx")
def cli() -> None:
    """Prune an exported ONNX CNN and repair its accuracy without training."""


cli.add_command(repair)
cli.add_command(compare)
cli.add_command(sweep)


@cli.command()
@MODEL
@click.option("--sparsity", type=float, help="Share of the weights to zero.  [default: 0.9]")
@prune_options
@output_options(SUFFIX)
def prune(model: Path, output: Path | None, force: bool, quiet: bool, **settings: Any) -> None:
    """Zero the smallest weights of MODEL and repair nothing."""
    if settings["sparsity"] is not None and settings["pattern"]:
        raise click.UsageError("--pattern and --sparsity exclude each other")
    options = PruneOptions(**pick(PruneOptions, settings))
    target = output or model.with_suffix(SUFFIX)
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
    """Write REPORT, JSON of repair, compare or sweep, as an HTML page (without sample pictures)."""
    target = output or report_path.with_suffix(".html")
    check_reports([target], report_path, force)
    write_reports([target], read_report(report_path))
    Console(quiet=quiet).print(f"→ {target}", highlight=False, markup=False, soft_wrap=True)


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

"""The command line: parse, call, print."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from asr_onnx import __version__, inspection, report
from asr_onnx import model as models
from asr_onnx.allocation import ALLOCATIONS
from asr_onnx.cli_types import BYTES, NUMBERS, SIZE, WORDS
from asr_onnx.data_source import open_data, source_problem
from asr_onnx.errors import AsrError, QualityError
from asr_onnx.files import write_text
from asr_onnx.options import (
    BN_STATS,
    CRITERIA,
    OPS,
    ROW_SCALES,
    PruneOptions,
    RepairOptions,
    one_of,
)
from asr_onnx.preprocess_files import FILE_NAME, PRESETS
from asr_onnx.progress import reporting
from asr_onnx.pruning import prune as prune_model
from asr_onnx.recipes import RECIPES, describe, options_for, stronger
from asr_onnx.repair import repair as repair_model
from asr_onnx.result import is_worse
from asr_onnx.sanity import check_preprocessing
from asr_onnx.sessions import choose_device
from asr_onnx.shrinkage import METHODS

F = TypeVar("F", bound=Callable[..., Any])

MODEL = click.argument("model", type=click.Path(path_type=Path))


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


solver_options = _options(
    click.option(
        "--recipe",
        type=click.Choice(list(RECIPES)),
        default="asr",
        show_default=True,
        help="A set of the options below, each of which still wins by itself.  "
        + "  ".join(f"{name}: {describe(name)}." for name in RECIPES),
    ),
    click.option(
        "--criterion",
        type=click.Choice(CRITERIA),
        help="magnitude: one threshold for all weights.  obs: layer by layer, by what a weight "
        "costs the layer's output.  [default: magnitude]",
    ),
    click.option(
        "--allocation",
        type=click.Choice(ALLOCATIONS),
        help="Density of each layer under --criterion obs.  [default: mixed]",
    ),
    click.option(
        "--reconstruct/--no-reconstruct",
        default=None,
        help="Re-fit the surviving weights to the dense output.  [default: no]",
    ),
    click.option("--method", type=click.Choice(METHODS), help="Scale rule.  [default: asr]"),
    click.option(
        "--prior",
        help="How far to trust a channel's gain: correlation, median, mean or fixed:V.  "
        "[default: correlation]",
    ),
    click.option(
        "--one-shot/--sequential",
        default=None,
        help="Measure every layer before any is repaired.  [default: sequential]",
    ),
    click.option(
        "--keep-first/--repair-first",
        default=None,
        help="Leave the first layer unrepaired.  [default: repair]",
    ),
    click.option(
        "--bn-stats",
        type=click.Choice(BN_STATS),
        help="Keep the dense BatchNormalization statistics, or re-estimate them afterwards.  "
        "[default: dense]",
    ),
    click.option("--bn-momentum", type=float, help="[default: 0.1]"),
    click.option("--bn-batch-size", type=int, help="[default: 128]"),
    click.option("--bn-batches", type=int, help="[default: 20]"),
)
prune_options = _options(
    click.option(
        "--pattern",
        metavar="N:M",
        help="N of every M weights along the input channels stay, e.g. 2:4, instead of --sparsity.",
    ),
    click.option(
        "--ops", type=WORDS, help=f"Operators to prune, of {','.join(OPS)}.  [default: Conv]"
    ),
    click.option("--include", metavar="REGEX", help="Prune only weights or nodes that match."),
    click.option("--exclude", metavar="REGEX", help="Do not prune weights or nodes that match."),
    click.option(
        "--row-scale",
        type=click.Choice(ROW_SCALES),
        default="auto",
        show_default=True,
        help="Divide weights by their output channel's norm before comparing them; auto: when "
        "BatchNormalization was folded at export.",
    ),
)
output_options = _options(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="File to write.  [default: MODEL with .sparse.onnx]",
    ),
    click.option("--force", is_flag=True, help="Overwrite files that exist."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
)
data_options = _options(
    click.option(
        "--calib",
        type=click.Path(path_type=Path),
        help="Folder of images (class folders are fine), .npy, .npz, a folder of those, or ONNX "
        "test data (test_data_set_*).",
    ),
    click.option(
        "--data-loader-script",
        metavar="FILE.py[:FUNC]",
        help="Instead of --calib: a Python function that yields {input name: array}, as "
        "Polygraphy's.  [default function: load_data]",
    ),
    click.option(
        "--load-inputs",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Instead of --calib: inputs saved by Polygraphy, JSON or a folder of it; repeatable.",
    ),
    click.option(
        "--input-shapes",
        multiple=True,
        metavar="NAME:DIMS",
        help="Sizes for dimensions the model leaves open, x:1x3x224x224 or x:[1,3,224,224]; the "
        "first sets the batch size; repeatable.",
    ),
    click.option("--num-samples", type=click.IntRange(1), default=512, show_default=True),
    click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option(
        "--holdout",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.2,
        show_default=True,
        help="Share of the samples that is not solved on but used to check the result.",
    ),
    click.option(
        "--preprocess",
        metavar="FILE|PRESET",
        help=f"{', '.join(PRESETS)}, a Hugging Face {FILE_NAME}, or a timm data config; the "
        f"options below win.  [default: MODEL's .preprocess.json or {FILE_NAME} next to it]",
    ),
    click.option("--mean", type=NUMBERS, help="Per channel, after --scale.  [default: ImageNet's]"),
    click.option("--std", type=NUMBERS, help="Per channel, after --scale.  [default: ImageNet's]"),
    click.option("--scale", type=float, help="Factor on pixels 0..255.  [default: 1/255]"),
    click.option("--color", type=click.Choice(["rgb", "bgr"]), help="[default: rgb]"),
    click.option("--layout", type=click.Choice(["auto", "nchw", "nhwc"]), help="[default: auto]"),
    click.option("--resize", type=SIZE, help="Shorter side, H,W, or none.  [default: to fit]"),
    click.option("--crop", type=SIZE, help="Centre crop: side, H,W, or none.  [default: to fit]"),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="asr-onnx")
def cli() -> None:
    """Prune an exported ONNX CNN and repair its accuracy without training."""


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
@click.option("--providers", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--memory-limit",
    type=BYTES,
    help="For live tensors, e.g. 2GiB; beyond it they go to "
    "disk.  [default: half of the free memory]",
)
@click.option(
    "--report", "report_path", type=click.Path(path_type=Path), help="Write a JSON report."
)
@output_options
def repair(
    model: Path,
    dense: Path | None,
    sparsity: float | None,
    output: Path | None,
    report_path: Path | None,
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
    if report_path:
        if report_path.resolve() == target.resolve():
            raise click.UsageError("--report and the output are one file")
        models.check_target(report_path, None, force)
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
    if report_path:
        content = report.to_dict(
            result,
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
        write_text(report_path, report.dumps(content))
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

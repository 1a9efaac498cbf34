"""``asr-onnx repair``: parse, call, judge, write, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import onnx
from rich.console import Console

from asr_onnx import comparison_report, report
from asr_onnx import model as models
from asr_onnx.acceptance import LabelledData, judge, told
from asr_onnx.cli_options import (
    MODEL,
    PROVIDERS,
    data_options,
    gate_options,
    label_options,
    output_options,
    pick,
    prune_options,
    solver_options,
)
from asr_onnx.cli_types import BYTES
from asr_onnx.compare import Comparison
from asr_onnx.data_source import (
    choose_preprocess,
    holds_images,
    open_data,
    source_problem,
    without_preprocess,
)
from asr_onnx.errors import QualityError
from asr_onnx.gates import Gates
from asr_onnx.input_shapes import parse_input_shapes
from asr_onnx.options import RepairOptions
from asr_onnx.pairing import rename_like
from asr_onnx.progress import reporting
from asr_onnx.recipes import options_for, stronger
from asr_onnx.repair import repair as repair_model
from asr_onnx.report_files import check_reports, write_reports
from asr_onnx.result import RepairResult
from asr_onnx.sanity import check_preprocessing
from asr_onnx.sessions import choose_device

FILE = click.Path(path_type=Path)


@click.command()
@MODEL
@data_options
@click.option("--sparsity", type=float, help="Share of the weights to zero.  [default: 0.9]")
@click.option(
    "--dense",
    type=FILE,
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
    "--data",
    type=FILE,
    help="Labelled data to tell the accuracy on, before and after: as --calib, but not used for "
    "the repair.",
)
@label_options
@gate_options
@click.option(
    "--keep-rejected",
    is_flag=True,
    help="Write a model that is rejected, too, as .rejected.onnx instead of .onnx.",
)
@click.option(
    "--report",
    "report_paths",
    multiple=True,
    type=FILE,
    help="Write a report: .html to be read, .json for machines; repeatable.",
)
@output_options
def repair(
    model: Path,
    dense: Path | None,
    sparsity: float | None,
    output: Path | None,
    keep_rejected: bool,
    report_paths: tuple[Path, ...],
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Zero the smallest weights of MODEL, then repair what that broke on calibration data.

    Exit code 3: the model is rejected, as it fails one of --min-agreement (on the calibration
    samples held out), --min-accuracy, --max-drop (both on --data), or is worse than plain pruning.
    Reports are written, the model is not.  --force lets pass what is worse than plain pruning, but
    no gate.
    """
    gates = Gates(**pick(Gates, settings))
    _check_usage(settings, gates, dense, sparsity)
    options = options_for(sparsity=sparsity, **pick(RepairOptions, settings))
    target = output or model.with_suffix(".sparse.onnx")
    rejected = target.with_suffix(".rejected.onnx") if keep_rejected else None
    models.check_target(target, model, force)
    if rejected:
        models.check_target(rejected, model, force)
    check_reports(report_paths, target, force)
    out, log = Console(quiet=quiet), Console(stderr=True, quiet=quiet)
    loaded = models.load(model)
    reference = rename_like(models.load(dense).proto, loaded.proto) if dense else loaded.proto
    data = open_data(loaded.proto, model, _for_calibration(settings))
    calibration = data.calibration
    if gates.min_agreement is not None and not calibration.num_held_out:
        raise click.UsageError(
            "--min-agreement is about samples that are held out, and there are none: give a "
            "larger --holdout, or more samples"
        )
    labelled = _labelled(model, reference, settings)
    if data.note:
        log.print(data.note, highlight=False, markup=False, soft_wrap=True)
    log.print(
        f"calibration: {calibration.num_solve + calibration.num_held_out} samples, "
        f"{data.preprocessing}",
        highlight=False,
    )
    device = choose_device(options.providers)
    warning = check_preprocessing(reference, calibration, device)
    if warning:
        log.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    with reporting(log, quiet) as progress:
        result = repair_model(
            loaded.proto,
            calibration,
            options,
            dense=reference if dense else None,
            progress=progress,
        )
    accuracy = None
    if labelled:
        with reporting(log, quiet) as progress:
            accuracy = labelled.accuracy(result.model, target.name, progress)
    judgement = judge(result, gates, target.name, accuracy, allow_worse=force)
    written = target if judgement.passed else rejected
    if written:
        models.save(result.model, written, loaded.external)
    if report_paths:
        content = report.to_dict(
            result,
            model=str(model),
            output=str(target) if judgement.passed else None,
            rejected=str(rejected) if rejected and not judgement.passed else None,
            **told(judgement, accuracy, settings["data"]),
            preprocessing=data.preprocessing,
            warnings=[warning] if warning else [],
            data={
                "path": data.path,
                "seed": settings["seed"],
                "num_samples": settings["num_samples"],
                "batch_size": settings["batch_size"],
                "holdout": settings["holdout"],
            },
            files=report.sha256(p for p in (model, dense, written) if p),
        )
        write_reports(report_paths, content, calibration)
    _print_result(out, result, accuracy, written)
    if hint := stronger(options):
        out.print(hint, highlight=False)
    for line in judgement.failed:
        click.echo(f"gate failed: {line}", err=True)
    if not judgement.passed:
        raise QualityError(judgement.refusal(kept=written))


def _check_usage(
    settings: dict[str, Any], gates: Gates, dense: Path | None, sparsity: float | None
) -> None:
    if problem := source_problem(settings):
        raise click.UsageError(problem)
    if dense and sparsity is not None:
        raise click.UsageError("--dense takes the mask from MODEL: leave out --sparsity")
    if sparsity is not None and settings["pattern"]:
        raise click.UsageError("--pattern and --sparsity exclude each other")
    if settings["data"]:
        return
    if gates.label_gates:
        raise click.UsageError(f"{gates.label_gates[0]} needs labelled data: give --data")
    for name in ("labels", "classes"):
        if settings[name]:
            raise click.UsageError(f"--{name} is about labelled data: give --data, too")


def _for_calibration(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, without preprocessing that is meant for the images of --data alone."""
    calib, data = settings["calib"], settings["data"]
    for_data = data and holds_images(data) and not (calib and holds_images(calib))
    return without_preprocess(settings) if for_data else settings


def _labelled(path: Path, dense: onnx.ModelProto, settings: dict[str, Any]) -> LabelledData | None:
    data = settings["data"]
    if not data:
        return None
    images = holds_images(data)
    return LabelledData(
        dense,
        data,
        settings["labels"],
        settings["classes"],
        choose_preprocess(path, settings, images=True)[0] if images else None,
        parse_input_shapes(settings["input_shapes"]),
        settings["batch_size"],
        settings["providers"],
    )


def _print_result(
    out: Console, result: RepairResult, accuracy: Comparison | None, written: Path | None
) -> None:
    out.print(report.site_table(result))
    out.print(report.output_table(result))
    if accuracy:
        out.print(comparison_report.accuracy_table(accuracy))
        for line in comparison_report.verdicts(accuracy):
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    out.print(
        f"{result.sparsity:.2%} zeros, {result.seconds:.1f} s on {result.device}, "
        f"{result.solve_images} images solved on, {result.held_out_images} held out → "
        f"{written or 'nothing written'}",
        highlight=False,
    )

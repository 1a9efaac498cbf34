"""``asr-onnx repair``: parse, call, judge, write, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from asr_onnx.cli.options import (
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
from asr_onnx.cli.progress import reporting
from asr_onnx.cli.types import BYTES
from asr_onnx.data.source import for_calibration, open_data, source_problem
from asr_onnx.errors import QualityError
from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.gates import Gates
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.evaluation.preflight import check_preprocessing
from asr_onnx.execution.session import choose_device
from asr_onnx.graph import model_file as models
from asr_onnx.graph.pairing import rename_like
from asr_onnx.options import MASK_OPTIONS, RepairOptions, stronger
from asr_onnx.pipeline import repair as repair_model
from asr_onnx.provenance import sha256
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.verdict import judge, told
from asr_onnx.reports import comparison_tables as comparison_report
from asr_onnx.reports import repair_tables as report
from asr_onnx.reports.files import check_reports, write_reports

FILE = click.Path(path_type=Path)
SUFFIX = ".sparse.onnx"


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
@output_options(SUFFIX)
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
    options = RepairOptions(sparsity=sparsity, **pick(RepairOptions, settings))
    target = output or model.with_suffix(SUFFIX)
    rejected = target.with_suffix(".rejected.onnx") if keep_rejected else None
    models.check_target(target, model, force)
    if rejected:
        models.check_target(rejected, model, force)
    check_reports(report_paths, target, force)
    out, log = Console(quiet=quiet), Console(stderr=True, quiet=quiet)
    loaded = models.load(model)
    reference = rename_like(models.load(dense).proto, loaded.proto) if dense else loaded.proto
    data = open_data(loaded.proto, model, for_calibration(settings))
    calibration = data.calibration
    if gates.min_agreement is not None and not calibration.num_held_out:
        raise click.UsageError(
            "--min-agreement is about samples that are held out, and there are none: give a "
            "larger --holdout, or more samples"
        )
    device = choose_device(options.providers)
    labelled = LabelledData.of(reference, model, settings, device)
    if data.note:
        log.print(data.note, highlight=False, markup=False, soft_wrap=True)
    log.print(
        f"calibration: {calibration.num_solve + calibration.num_held_out} samples, "
        f"{data.preprocessing}",
        highlight=False,
    )
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
            accuracy = labelled.compare({target.name: result.model}, progress)
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
            files=sha256(models.files(*(p for p in (model, dense, written) if p))),
        )
        write_reports(report_paths, content, calibration)
    _print_result(out, result, accuracy, written)
    if hint := stronger(options):
        out.print(hint, highlight=False)
    for failure in judgement.failed:
        click.echo(f"gate failed: {failure}", err=True)
    if not judgement.passed:
        raise QualityError(judgement.refusal(kept=written))


def _check_usage(
    settings: dict[str, Any], gates: Gates, dense: Path | None, sparsity: float | None
) -> None:
    if problem := source_problem(settings):
        raise click.UsageError(problem)
    given = {**settings, "sparsity": sparsity}
    if dense and (chosen := [n for n in MASK_OPTIONS if given[n] is not None]):
        options = ", ".join("--" + n.replace("_", "-") for n in chosen)
        raise click.UsageError(f"--dense takes the mask from MODEL: leave out {options}")
    if sparsity is not None and settings["pattern"]:
        raise click.UsageError("--pattern and --sparsity exclude each other")
    if settings["data"]:
        return
    if gates.label_gates:
        raise click.UsageError(f"{gates.label_gates[0]} needs labelled data: give --data")
    for name in ("labels", "classes"):
        if settings[name]:
            raise click.UsageError(f"--{name} is about labelled data: give --data, too")


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

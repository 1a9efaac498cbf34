"""What ``repair`` and ``quantize`` do once their options are parsed: work, judge, write, print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx

from asr_onnx.cli.automatic import Automatic, parse_automatic
from asr_onnx.cli.options import (
    record,
)
from asr_onnx.cli.progress import reporting
from asr_onnx.cli.resolved import resolved
from asr_onnx.cli.terminal import Terminal, complain
from asr_onnx.data.batches import Batches
from asr_onnx.data.enough import check_enough
from asr_onnx.data.source import (
    CalibrationOptions,
    DataSource,
    LabelOptions,
    open_data,
)
from asr_onnx.declare import flag
from asr_onnx.errors import AsrError, OutputTakenError, QualityError
from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Gates, require_measurable
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.evaluation.match import compare_outputs
from asr_onnx.evaluation.preflight import check_preprocessing
from asr_onnx.execution.session import Device, choose_device
from asr_onnx.graph import model_file
from asr_onnx.graph.pairing import rename_like
from asr_onnx.graph.saving import save
from asr_onnx.machine import Execution
from asr_onnx.options import INT8, RepairOptions, choosing
from asr_onnx.parallel import Progress
from asr_onnx.pipeline import repair as repair_model
from asr_onnx.provenance import Inputs, sha256
from asr_onnx.repairing.job import run_checked
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import AutoResult
from asr_onnx.repairing.verdict import Judgement, judge
from asr_onnx.reports import amount_search, comparison_tables, repair_tables
from asr_onnx.reports.files import check_reports, write_reports
from asr_onnx.sweeps.automatic import check_open


@dataclass(frozen=True)
class Request:
    """What was asked for; everything that can be refused without a model has been."""

    model: Path
    dense: Path | None
    target: Path
    rejected: Path | None
    reports: tuple[Path, ...]
    force: bool
    calibration: CalibrationOptions
    labels: LabelOptions
    gates: Gates
    figures: Figures
    options: RepairOptions
    execution: Execution
    automatic: Automatic | None


@dataclass(frozen=True)
class Prepared:
    """The models and the data of a request."""

    model: model_file.LoadedModel
    reference: onnx.ModelProto  # the dense model, with the names of the other
    data: DataSource
    labelled: LabelledData | None
    inputs: Inputs
    warnings: tuple[str, ...]


def carry_out(request: Request, quiet: bool, verbose: bool) -> None:
    """Do what was asked for; raises ``QualityError`` for a model that is rejected."""
    out, log = Terminal(quiet=quiet), Terminal(stderr=True, quiet=quiet)
    opened = _open(request, log)
    with reporting(log, quiet) as progress:
        found = _found(request, opened, progress)
        result = found.result if found else _repaired(request, opened, progress)
    name, accuracy = request.target.name, None
    if opened.labelled:
        with reporting(log, quiet) as progress:
            accuracy = opened.labelled.compare({name: result.model}, progress)
    judgement = judge(result, request.gates, name, accuracy, allow_worse=request.force)
    judgement = judgement.also(found.failures if found else ())
    changed = list(opened.inputs.changed())  # now, as the output may be one of them
    written = request.target if judgement.passed else request.rejected
    taken: OutputTakenError | None = None
    if written:
        try:
            save(result.model, written, opened.model.external, request.force)
        except OutputTakenError as error:  # told at the end, as it spoils nothing else
            written, taken = error.kept, error
    search = found.trials.to_dict() if found else None
    unreported = None
    if request.reports:  # after the model, whose hash they have; before what a closed pipe may end
        content = _report(request, opened, result, judgement, accuracy, written, changed, search)
        try:
            write_reports(request.reports, content, opened.data.batches)
        except AsrError as error:
            model = f"the model is written: '{written}'" if written else "no model is written"
            unreported = AsrError(f"{error}; {model}")
    _print_result(out, result, accuracy, judgement, written, verbose, search)
    if unreported:
        raise unreported
    for line in (*changed, *repair_tables.remarks(result)):
        log.say(f"warning: {line}")
    if hint := stronger(result.options):
        out.say(hint)
    for failure in judgement.failed:
        complain(f"gate failed: {failure}")
    if not judgement.passed:
        raise QualityError(judgement.refusal(kept=written))
    if taken:
        raise taken


def parse(
    model: Path,
    output: Path | None,
    dense: Path | None,
    reports: tuple[Path, ...],
    keep_rejected: bool,
    force: bool,
    suffix: str,
    **settings: Any,
) -> Request:
    """The request, or ``UsageError`` for an invalid one; ``suffix`` of the output by default."""
    gates = record(Gates, settings)
    calibration = record(CalibrationOptions, settings)
    calibration.check()
    if dense and (chosen := [flag(n) for n in choosing(settings)]):
        raise click.UsageError(f"--dense takes the mask from MODEL: leave out {', '.join(chosen)}")
    labels = record(LabelOptions, settings)
    if gates.label_gates and not labels.data:
        raise click.UsageError(f"{gates.label_gates[0]} needs labelled data: give --data")
    figures = _figures(gates, settings)
    if settings.get("precision") != INT8 and (settings.get("engine") or settings.get("ranges")):
        raise click.UsageError(f"--for and --ranges go with --precision {INT8}: give that, too")
    automatic, settings = parse_automatic(settings, gates, force)
    options = record(RepairOptions, settings)
    if automatic:
        check_open(options, automatic.amount)
    target = output or model.with_suffix(suffix)
    rejected = target.with_suffix(".rejected.onnx") if keep_rejected else None
    for path in filter(None, (target, rejected)):
        model_file.check_target(path, model, force)
    check_reports(reports, target, force)
    execution = record(Execution, settings)
    return Request(
        model, dense, target, rejected, reports, force, calibration, labels, gates, figures,
        options, execution, automatic,
    )  # fmt: skip


def _figures(gates: Gates, settings: dict[str, Any]) -> Figures:
    """What is told of outputs; the metric script is read here, before the work."""
    figures = record(Figures, settings)
    metric = figures.metric
    if gates.metrics and metric is None:
        raise click.UsageError("--min-metric is about --metric-script: give that, too")
    return figures


def _open(request: Request, log: Terminal) -> Prepared:
    """Read the models and open the data; tell what is done to them, and what looks wrong."""
    loaded = model_file.load(request.model, in_place=True)
    reference = loaded.proto
    if request.dense:
        dense = model_file.load(request.dense, in_place=True).proto
        reference = rename_like(dense, loaded.proto)
    inputs = Inputs.of(model_file.files(*filter(None, (request.model, request.dense))))
    calibration = request.calibration.beside(request.labels.data)
    data = open_data(loaded.proto, request.model, calibration)
    batches = data.batches
    enough = check_enough(batches, request.force)
    if request.gates.min_agreement is not None and not batches.num_held_out:
        raise click.UsageError(
            "--min-agreement is about samples that are held out, and there are none: give a "
            "larger --holdout, or more samples"
        )
    device = choose_device(request.execution.providers)
    _try_figures(request, reference, batches, device)
    how = request.calibration
    labelled = LabelledData.of(reference, request.model, request.labels, how, device)
    for note in data.notes:
        log.say(note)
    count = batches.num_solve + batches.num_held_out
    log.print(f"calibration: {count} samples, {data.preprocessing}")
    misfit = check_preprocessing(reference, batches, device)
    warnings = tuple(filter(None, (*enough, misfit)))
    for warning in warnings:
        log.say(f"warning: {warning}")
    return Prepared(loaded, reference, data, labelled, inputs, warnings)


def _try_figures(
    request: Request, reference: onnx.ModelProto, batches: Batches, device: Device
) -> None:
    """Refuse before the work what cannot be told of the dense model's outputs."""
    gates, figures = request.gates, request.figures
    axes = figures.axes(reference)
    if gates.min_agreement is None and figures.metric is None:
        return
    outputs = run_checked(reference, batches, device)
    sizes = [len(b.samples) for b in batches.checked]
    metrics = figures.metric(outputs, outputs, sizes) if figures.metric else None
    require_measurable(gates, compare_outputs(outputs, outputs, sizes, axes), metrics)


def _repaired(request: Request, opened: Prepared, progress: Progress) -> RepairResult:
    """The repair that the options ask for."""
    return repair_model(
        opened.model.proto,
        opened.data.batches,
        request.options,
        dense=opened.reference if request.dense else None,
        figures=request.figures,
        execution=request.execution,
        progress=progress,
        accept=lambda found: _judged(request, opened, found).passed,
    )


def _found(request: Request, opened: Prepared, progress: Progress) -> AutoResult | None:
    """The repair that the gates allow, if that is asked for."""
    if request.automatic is None:
        return None
    return request.automatic.find(
        opened.model.proto,
        opened.data.batches,
        opened.labelled,
        request.options,
        request.gates,
        request.figures,
        request.execution,
        files=opened.inputs.hashes,
        name=request.target.name,
        allow_worse=request.force,
        progress=progress,
    )


def _judged(request: Request, opened: Prepared, result: RepairResult) -> Judgement:
    """The judgement on a rung of recipe auto; accuracy is told only where a gate asks for it."""
    name, accuracy = request.target.name, None
    if opened.labelled and request.gates.label_gates:
        accuracy = opened.labelled.compare({name: result.model}, None)
    return judge(result, request.gates, name, accuracy, allow_worse=request.force)


def _report(
    request: Request,
    opened: Prepared,
    result: RepairResult,
    judgement: Judgement,
    accuracy: Comparison | None,
    written: Path | None,
    changed: Sequence[str],
    search: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The report's content, with all that it takes to do the repair again."""
    passed, how = judgement.passed, request.calibration
    files = dict(opened.inputs.hashes) | sha256(model_file.files(written) if written else ())
    return repair_tables.to_dict(
        result,
        model=str(request.model),
        output=str(written) if passed else None,
        rejected=str(written) if written and not passed else None,
        **repair_tables.judgement_dict(judgement, accuracy, request.labels.data),
        preprocessing=opened.data.preprocessing,
        warnings=[*opened.warnings, *changed],
        search=search,
        data={
            "path": opened.data.path,
            **{n: getattr(how, n) for n in ("seed", "num_samples", "batch_size", "holdout")},
        },
        execution=vars(request.execution),
        files=files,
        config=resolved(),
    )


def _print_result(
    out: Terminal,
    result: RepairResult,
    accuracy: Comparison | None,
    judgement: Judgement,
    written: Path | None,
    verbose: bool,
    search: Mapping[str, Any] | None,
) -> None:
    for line in repair_tables.summary(result, judgement, written):
        out.say(line)
    for line in amount_search.lines(search) if search else ():
        out.say(line)
    out.print(repair_tables.output_table(result))
    sites = repair_tables.site_table if verbose else repair_tables.worst_sites
    out.print(sites(result))
    if kept := repair_tables.float32_table(result):
        out.print(kept)
    if metrics := repair_tables.metric_table(result):
        out.print(metrics)
    if accuracy:
        out.print(comparison_tables.accuracy_table(accuracy))
        for line in comparison_tables.verdicts(accuracy):
            out.say(line)


def stronger(options: RepairOptions) -> str:
    """One line about what ``best`` would do beyond these options; empty when they are as strong."""
    missing = []
    if options.chooses_mask and options.choice.search is None:
        missing.append("choose the masks layer by layer from second moments")
    if not options.reconstruct:
        missing.append("re-fit the surviving weights by least squares")
    return f"--recipe best would also {' and '.join(missing)}" if missing else ""

"""``asr-onnx compare``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asr_onnx.cli.options import (
    FILE,
    FORCE,
    QUIET,
    REPORT,
    command,
    group,
    of,
    option,
    record,
)
from asr_onnx.cli.progress import reporting
from asr_onnx.cli.resolved import resolved
from asr_onnx.cli.terminal import Terminal, complain
from asr_onnx.data.source import ImageOptions, InputOptions, LabelOptions, holds_images
from asr_onnx.errors import QualityError
from asr_onnx.evaluation.comparison import CompareOptions, Comparison
from asr_onnx.evaluation.comparison import compare as compare_models
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Gates, require_measurable
from asr_onnx.files import write_text
from asr_onnx.graph import model_file
from asr_onnx.graph.input_shapes import with_shapes
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.machine import Execution
from asr_onnx.parallel import Progress
from asr_onnx.provenance import Inputs, dumps
from asr_onnx.reports import comparison_tables
from asr_onnx.reports.files import check_reports, text_of, write_reports


@command(repeats=True)
@click.argument("dense", type=FILE)
@click.argument("others", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@group(
    "Data",
    of(
        LabelOptions,
        "data",
        data="Folder of images (class folders are their labels), .npy, .npz, a folder of those, or "
        "ONNX test data (test_data_set_*).",
    ),
    of(LabelOptions, "labels", "classes"),
    option("--no-labels", is_flag=True, help="Compare with the dense model only."),
    of(CompareOptions, "num_samples", "batch_size", "seed"),
    of(InputOptions, "data_loader_script", "load_inputs", "input_shapes"),
)
@group("Preprocessing", of(ImageOptions))
@group("What to tell", of(CompareOptions, "topk", "latency"))
@group("Quality gates", of(Gates), of(Figures))
@group(
    "Output",
    REPORT,
    option(
        "--json",
        "json_path",
        type=FILE,
        help="Write everything as JSON, the same as --report FILE.json; - is stdout.",
    ),
    option(
        "--markdown",
        is_flag=True,
        help="Print Markdown instead of the tables, the same as --report FILE.md.",
    ),
    FORCE,
    QUIET,
)
@group("Machine", of(Execution, "providers"))
def compare(
    dense: Path,
    others: tuple[Path, ...],
    json_path: Path | None,
    markdown: bool,
    reports: tuple[Path, ...],
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compare each MODEL with the DENSE one: accuracy, outputs, size and speed.

    Exit code 3: a model fails a quality gate; reports are written all the same.
    """
    gates = record(Gates, settings)
    _check(gates, settings)
    to_stdout = str(json_path) == "-"
    if to_stdout and markdown:
        raise click.UsageError("--markdown and --json - both print: give one of them a file")
    if json_path and not to_stdout:
        model_file.check_target(json_path, None, force)
        if any(json_path.resolve() == path.resolve() for path in (dense, *others)):
            raise click.UsageError(
                f"--json '{json_path}' is a model that is read: name another file"
            )
    check_reports(reports, None if to_stdout else json_path, force, "that of --json")
    log = Terminal(stderr=True, quiet=quiet)
    out = log if to_stdout else Terminal(quiet=quiet)
    with reporting(log, quiet) as progress:
        result, inputs = _compare(dense, others, settings, log, progress)
    for m in result.models:
        require_measurable(gates, m.outputs, m.metrics)
    if not markdown:
        for table in comparison_tables.tables(result):
            out.print(table)
        for line in comparison_tables.verdicts(result):
            out.say(line)
    for line in (*inputs.changed(), *comparison_tables.remarks(result)):
        log.say(f"warning: {line}")
    if json_path or reports or markdown:
        content = _report(result, gates, inputs, settings)
        if markdown:
            click.echo(text_of(content, ".md"), nl=False)
        if to_stdout:
            click.echo(dumps(content), nl=False)
        elif json_path:
            write_text(json_path, dumps(content))
        write_reports(reports, content)
    if failed := result.failures(gates):
        for failure in failed:
            complain(f"gate failed: {failure}")
        raise QualityError(f"{len(failed)} quality gate{'s' * (len(failed) > 1)} failed")


def _check(gates: Gates, settings: dict[str, Any]) -> None:
    """Raise ``UsageError`` for invalid options, before any model is read."""
    record(InputOptions, settings).source(settings["data"], "--data")
    if gates.metrics and not settings["metric_script"]:
        raise click.UsageError("--min-metric is about --metric-script: give that, too")
    no_labels = settings["no_labels"]
    if no_labels and (settings["labels"] or settings["classes"]):
        raise click.UsageError("--no-labels excludes --labels and --classes")
    if no_labels and gates.label_gates:
        raise click.UsageError(f"{gates.label_gates[0]} needs labels: leave out --no-labels")
    if gates.label_gates and not (settings["data"] or settings["labels"]):
        raise click.UsageError(f"{gates.label_gates[0]} needs labels: give --labels")


def _compare(
    dense: Path,
    others: tuple[Path, ...],
    settings: dict[str, Any],
    log: Terminal,
    progress: Progress,
) -> tuple[Comparison, Inputs]:
    """Open models and data, tell what is done to them, and compare."""
    how, options = record(InputOptions, settings), record(CompareOptions, settings)
    loaded, *rest = (model_file.load(path, in_place=True) for path in (dense, *others))
    inputs = Inputs.of(model_file.files(dense, *others))
    data, labels = settings["data"], settings["labels"]
    preprocess, note = None, None
    if data:
        preprocess, note = how.choose(dense, images=holds_images(data))
    else:
        limit = None if labels else options.num_samples  # labels are of all samples
        data = how.load(with_shapes(model_inputs(loaded.proto), how.shapes), limit)
    if note:
        log.say(note)
    found = compare_models(
        loaded,
        rest,
        data,
        False if settings["no_labels"] else labels,
        options,
        classes=settings["classes"],
        preprocess=preprocess,
        input_shapes=how.shapes,
        figures=record(Figures, settings),
        execution=record(Execution, settings),
        progress=progress,
    )
    return found, inputs


def _report(
    result: Comparison,
    gates: Gates,
    inputs: Inputs,
    settings: dict[str, Any],
) -> dict[str, Any]:
    path = record(InputOptions, settings).source(settings["data"], "--data")
    return comparison_tables.to_dict(
        result,
        gates,
        files=dict(inputs.hashes),
        data={"path": path, "seed": record(CompareOptions, settings).seed},
        config=resolved(),
    )

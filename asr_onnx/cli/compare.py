"""``asr-onnx compare``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from asr_onnx.cli.options import (
    PROVIDERS,
    gate_options,
    label_options,
    loader_options,
    pick,
    preprocess_options,
)
from asr_onnx.cli.progress import reporting
from asr_onnx.data.source import (
    choose_preprocess,
    holds_images,
    load_samples,
    source_path,
    source_problem,
)
from asr_onnx.errors import QualityError
from asr_onnx.evaluation.comparison import compare as compare_models
from asr_onnx.evaluation.gates import Gates
from asr_onnx.files import write_text
from asr_onnx.graph import model_file as models
from asr_onnx.graph.input_shapes import parse_input_shapes, with_shapes
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.provenance import dumps, sha256
from asr_onnx.reports import comparison_tables as comparison_report
from asr_onnx.reports.files import check_reports, write_reports

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("dense", type=FILE)
@click.argument("others", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    type=FILE,
    help="Folder of images (class folders are their labels), .npy, .npz, a folder of those, or "
    "ONNX test data (test_data_set_*).",
)
@loader_options("--data")
@label_options
@click.option("--no-labels", is_flag=True, help="Compare with the dense model only.")
@click.option("--topk", type=click.IntRange(1), default=5, show_default=True)
@click.option("--num-samples", type=click.IntRange(1), help="Draw so many.  [default: all]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@preprocess_options
@click.option("--latency/--no-latency", default=True, help="Time the models.  [default: yes]")
@PROVIDERS
@gate_options
@click.option(
    "--json",
    "json_path",
    type=FILE,
    help="Write everything as JSON, the same as --report FILE.json; - is stdout.",
)
@click.option(
    "--report",
    "report_paths",
    multiple=True,
    type=FILE,
    help="Write a report: .html to be read, .json for machines; repeatable.",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def compare(
    dense: Path,
    others: tuple[Path, ...],
    labels: Path | None,
    no_labels: bool,
    classes: Path | None,
    latency: bool,
    json_path: Path | None,
    report_paths: tuple[Path, ...],
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compare each MODEL with the DENSE one: accuracy, outputs, size and speed.

    Exit code 3: a model fails one of --min-agreement, --min-accuracy, --max-drop; reports are
    written all the same.
    """
    if problem := source_problem(settings, "data"):
        raise click.UsageError(problem)
    gates = Gates(**pick(Gates, settings))
    if no_labels and (labels or classes):
        raise click.UsageError("--no-labels excludes --labels and --classes")
    if no_labels and gates.label_gates:
        raise click.UsageError(f"{gates.label_gates[0]} needs labels: leave out --no-labels")
    if gates.label_gates and not (settings["data"] or labels):
        raise click.UsageError(f"{gates.label_gates[0]} needs labels: give --labels")
    to_stdout = str(json_path) == "-"
    if json_path and not to_stdout:
        models.check_target(json_path, None, force)
    check_reports(report_paths, None if to_stdout else json_path, force, "that of --json")
    log = Console(stderr=True, quiet=quiet)
    out = log if to_stdout else Console(quiet=quiet)
    shapes = parse_input_shapes(settings["input_shapes"])
    loaded = models.load(dense)
    preprocess, note = None, None
    data = settings["data"]
    if data:
        preprocess, note = choose_preprocess(dense, settings, images=holds_images(data))
    else:
        limit = None if labels else settings["num_samples"]  # labels are of all samples
        data = load_samples(settings, with_shapes(model_inputs(loaded.proto), shapes), limit)
    if note:
        log.print(note, highlight=False, markup=False, soft_wrap=True)
    with reporting(log, quiet) as progress:
        result = compare_models(
            loaded,
            others,
            data,
            False if no_labels else labels,
            classes=classes,
            preprocess=preprocess,
            input_shapes=shapes,
            latency=latency,
            progress=progress,
            **{n: settings[n] for n in ("num_samples", "batch_size", "seed", "topk", "providers")},
        )
    for table in comparison_report.tables(result):
        out.print(table)
    for line in comparison_report.verdicts(result):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if json_path or report_paths:
        content = comparison_report.to_dict(
            result,
            gates,
            files=sha256(models.files(dense, *others)),
            data={"path": source_path(settings, "data"), "seed": settings["seed"]},
        )
        if to_stdout:
            click.echo(dumps(content), nl=False)
        elif json_path:
            write_text(json_path, dumps(content))
        write_reports(report_paths, content)
    if failed := result.failures(gates):
        for failure in failed:
            click.echo(f"gate failed: {failure}", err=True)
        raise QualityError(f"{len(failed)} quality gate{'s' * (len(failed) > 1)} failed")

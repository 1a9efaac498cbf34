"""``asr-onnx compare``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from asr_onnx import comparison_report, report
from asr_onnx import model as models
from asr_onnx.cli_options import PROVIDERS, preprocess_options
from asr_onnx.compare import compare as compare_models
from asr_onnx.data_source import choose_preprocess, holds_images
from asr_onnx.errors import QualityError
from asr_onnx.files import write_text
from asr_onnx.gates import Gates
from asr_onnx.progress import reporting

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("dense", type=FILE)
@click.argument("others", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    required=True,
    type=FILE,
    help="Folder of images (class folders are their labels), .npy, .npz, or a folder of those.",
)
@click.option(
    "--labels",
    type=FILE,
    help="CSV or JSON of file -> label (an index, or a name among --classes), or .npy of indices.",
)
@click.option("--no-labels", is_flag=True, help="Compare with the dense model only.")
@click.option(
    "--classes",
    type=FILE,
    help="Names of the class folders in the order of their labels, one per line, or a JSON list.",
)
@click.option("--topk", type=click.IntRange(1), default=5, show_default=True)
@click.option("--num-samples", type=click.IntRange(1), help="Draw so many.  [default: all]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@preprocess_options
@click.option("--latency/--no-latency", default=True, help="Time the models.  [default: yes]")
@PROVIDERS
@click.option(
    "--min-agreement", type=float, help="Fail below this share of the dense model's arg-max."
)
@click.option("--min-accuracy", type=float, help="Fail below this top-1 accuracy, e.g. 0.9.")
@click.option("--max-drop", type=float, help="Fail when top-1 is lower by more, e.g. 0.01.")
@click.option("--json", "json_path", type=FILE, help="Write everything as JSON; - is stdout.")
@click.option("--force", is_flag=True, help="Overwrite the JSON file.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def compare(
    dense: Path,
    others: tuple[Path, ...],
    data: Path,
    labels: Path | None,
    no_labels: bool,
    classes: Path | None,
    latency: bool,
    json_path: Path | None,
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compare each MODEL with the DENSE one: accuracy, outputs, size and speed.

    Exit code 3: a model fails one of --min-agreement, --min-accuracy, --max-drop.
    """
    gates = Gates(settings["min_agreement"], settings["min_accuracy"], settings["max_drop"])
    if no_labels and (labels or classes):
        raise click.UsageError("--no-labels excludes --labels and --classes")
    if no_labels and gates.label_gates:
        raise click.UsageError(f"{gates.label_gates[0]} needs labels: leave out --no-labels")
    to_stdout = str(json_path) == "-"
    if json_path and not to_stdout:
        models.check_target(json_path, None, force)
    log = Console(stderr=True, quiet=quiet)
    out = log if to_stdout else Console(quiet=quiet)
    preprocess, note = choose_preprocess(dense, settings, images=holds_images(data))
    if note:
        log.print(note, highlight=False, markup=False, soft_wrap=True)
    with reporting(log, quiet) as progress:
        result = compare_models(
            dense,
            others,
            data,
            False if no_labels else labels,
            classes=classes,
            preprocess=preprocess,
            latency=latency,
            progress=progress,
            **{n: settings[n] for n in ("num_samples", "batch_size", "seed", "topk", "providers")},
        )
    for table in comparison_report.tables(result):
        out.print(table)
    for line in comparison_report.verdicts(result):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if json_path:
        content = comparison_report.to_dict(
            result,
            gates,
            files=report.sha256([dense, *others]),
            data={"path": str(data), "seed": settings["seed"]},
        )
        text = report.dumps(content)
        if to_stdout:
            click.echo(text, nl=False)
        else:
            write_text(json_path, text)
    if failed := result.failures(gates):
        for line in failed:
            click.echo(f"gate failed: {line}", err=True)
        raise QualityError(f"{len(failed)} quality gate{'s' * (len(failed) > 1)} failed")

"""The main job on the sample model: prune, repair, and count right answers."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import asr_onnx
from asr_onnx.reports.comparison_tables import interval_text
from asr_onnx.samples import CALIB, TEST, sample_folder

SAMPLES = sample_folder()


@click.command()
@click.option("--sparsity", default=0.9, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo"))
def main(sparsity: float, output: Path) -> None:
    """Repair both exports of the sample model and show the accuracy before and after."""
    quick = asr_onnx.CompareOptions(latency=False)
    output.mkdir(parents=True, exist_ok=True)
    table = Table(caption="Top-1 accuracy [95% confidence interval]")
    for column in ("export", "model", "accuracy", "same answer as dense", "zeros"):
        table.add_column(column, justify="left" if column in ("export", "model") else "right")
    verdicts = []
    for export in ("bn", "folded"):
        dense = asr_onnx.load(SAMPLES / f"digits_resnet_{export}.onnx")
        calib = SAMPLES / CALIB
        scaling = asr_onnx.recipe("asr", sparsity=sparsity)
        pruned = asr_onnx.prune(dense.proto, scaling)
        scaled = asr_onnx.repair(dense.proto, calib, scaling)
        result = asr_onnx.repair(dense.proto, calib, asr_onnx.RepairOptions(sparsity=sparsity))
        asr_onnx.save(result.model, output / f"digits_resnet_{export}.sparse.onnx")
        taken = f"auto ({result.options.recipe})"
        models = {"pruned": pruned, "asr": scaled.model, taken: result.model}
        found = asr_onnx.compare(dense, models, SAMPLES / TEST, options=quick)
        for m in (found.dense, *found.models):
            assert m.top1, "the test images lie in class folders"
            same = "–" if m.agreement is None else f"{m.agreement:.1%}"
            zeros = m.footprint.zeros / m.footprint.weights
            table.add_row(export, m.name, interval_text(m.top1), same, f"{zeros:.1%}")
        table.add_section()
        table.title = f"Digits, {sparsity:.0%} of the weights zeroed, {found.samples} test images"
        verdicts.append(f"{export}: {taken} against asr {found.models[2].against_previous}")
    console = Console(highlight=False)
    console.print(table)
    for line in verdicts:
        console.print(line, markup=False)
    console.print(f"repaired models: {output}")


if __name__ == "__main__":
    main()

"""The main job on the sample model: prune, repair, and count right answers."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import asr_onnx
from asr_onnx.calibration import ImageSamples, open_samples
from asr_onnx.inputs import model_inputs
from asr_onnx.sessions import Device, Runner

SAMPLES = Path(__file__).resolve().parent.parent / "sample_models"


def accuracy(model: onnx.ModelProto, samples: ImageSamples) -> float:
    """Share of the images whose arg-max is the number that starts the name of their folder."""
    labels = np.array([int(samples.class_folder(i).split("_")[0]) for i in range(len(samples))])
    name = model.graph.input[0].name
    images = np.stack([samples[i][name] for i in range(len(samples))])
    runner = Runner(model, Device())
    parts = [images[i : i + 64] for i in range(0, len(images), 64)]
    answers = np.concatenate([next(iter(runner.run({name: p}).values())) for p in parts])
    return float(np.mean(answers.argmax(axis=1) == labels))


@click.command()
@click.option("--sparsity", default=0.9, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo"))
def main(sparsity: float, output: Path) -> None:
    """Repair both exports of the sample model and show the accuracy before and after."""
    output.mkdir(parents=True, exist_ok=True)
    table = Table(title=f"Digits, {sparsity:.0%} of the weights zeroed, 500 test images")
    for column in ("export", "dense", "pruned", "repaired"):
        table.add_column(column, justify="left" if column == "export" else "right")
    for export in ("bn", "folded"):
        loaded = asr_onnx.load(SAMPLES / f"digits_resnet_{export}.onnx")
        options = asr_onnx.RepairOptions(sparsity=sparsity)
        result = asr_onnx.repair(loaded.proto, SAMPLES / "digits" / "calib", options)
        asr_onnx.save(result.model, output / f"digits_resnet_{export}.sparse.onnx")
        samples = open_samples(SAMPLES / "digits" / "test", model_inputs(loaded.proto))
        assert isinstance(samples, ImageSamples)
        models = (loaded.proto, asr_onnx.prune(loaded.proto, options), result.model)
        table.add_row(export, *(f"{accuracy(m, samples):.1%}" for m in models))
    console = Console()
    console.print(table)
    console.print(f"repaired models: {output}")


if __name__ == "__main__":
    main()

"""Top-1 of recipes and priors over sparsities, as a Markdown table: the figures in the docs.

    python tools/measure.py recipes --model a.onnx --calib train/ --test test/
    python tools/measure.py priors  --model a.onnx --calib train/ --test test/

Labels are the numbers that begin the names of the test folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

import asr_onnx
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import ImageSamples, open_samples
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import model_inputs

SPARSITIES = {f"{s:g} %": {"sparsity": s / 100} for s in (50, 70, 80, 90, 95)}
SETTINGS: dict[str, dict[str, Any]] = {**SPARSITIES, "2:4": {"pattern": "2:4"}}
RECIPES: dict[str, dict[str, Any]] = {
    "pruned only": {"recipe": "asr", "method": "none"},
    "paper": {"recipe": "paper"},
    "asr": {"recipe": "asr"},
    "refit": {"recipe": "refit"},
    "best": {"recipe": "best"},
    "auto": {"recipe": "auto"},
}
PRIORS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "layerwise": {"method": "layerwise"},
    "channelwise": {"method": "channelwise"},
    **{f"asr, {p}": {"prior": p} for p in ("correlation", "median", "mean", "fixed:0.1")},
    "asr, cumulative": {"bn_stats": "cumulative"},
}


class Scorer:
    """Labelled images, kept in memory, and the accuracy of a model on them."""

    def __init__(self, folder: Path, model: onnx.ModelProto) -> None:
        inputs = model_inputs(model)
        samples = open_samples(folder, inputs)
        assert isinstance(samples, ImageSamples)
        everything = range(len(samples))
        self._name = inputs[0].name
        self._labels = np.array([int(samples.class_folder(i).split("_")[0]) for i in everything])
        self._images = np.stack([samples[i][self._name] for i in everything])

    def __call__(self, model: onnx.ModelProto) -> float:
        """Top-1 in percent."""
        runner = Runner(model, Device())
        parts = [self._images[i : i + 64] for i in range(0, len(self._images), 64)]
        answers = [next(iter(runner.run({self._name: p}).values())).argmax(1) for p in parts]
        return 100 * float(np.mean(np.concatenate(answers) == self._labels))


def rows(
    models: tuple[Path, ...],
    calib: Path,
    test: Path,
    images: int,
    variants: dict[str, dict[str, Any]],
    settings: dict[str, dict[str, Any]],
) -> Iterator[str]:
    """The lines of the table, one at a time."""
    yield "| model | " + " | ".join(["repair", *settings]) + " |"
    yield "|---|---|" + "---:|" * len(settings)
    for path in models:
        proto = asr_onnx.load(path).proto
        inputs = model_inputs(proto)
        data = Batches(open_samples(calib, inputs), inputs, num_samples=images)
        score = Scorer(test, proto)
        yield f"| {path.stem} | dense | " + f"{score(proto):.1f} | " + "| " * (len(settings) - 1)
        for name, variant in variants.items():
            cells = []
            for setting in settings.values():
                try:
                    options = asr_onnx.RepairOptions(**variant, **setting)
                    cells.append(f"{score(asr_onnx.repair(proto, data, options).model):.1f}")
                except asr_onnx.ModelError:
                    cells.append("–")  # no BatchNormalization to re-estimate
            yield f"| {path.stem} | {name} | " + " | ".join(cells) + " |"


@click.command()
@click.argument("what", type=click.Choice(["recipes", "priors"]))
@click.option("--model", "models", multiple=True, required=True, type=click.Path(path_type=Path))
@click.option("--calib", required=True, type=click.Path(path_type=Path))
@click.option("--test", required=True, type=click.Path(path_type=Path))
@click.option("--images", default=512, show_default=True, help="Calibration images.")
def main(what: str, models: tuple[Path, ...], calib: Path, test: Path, images: int) -> None:
    """Print the table of recipes, or of priors, for each model."""
    if what == "recipes":
        lines = rows(models, calib, test, images, RECIPES, SETTINGS)
    else:
        settings = {k: v for k, v in SPARSITIES.items() if k != "50 %"}
        lines = rows(models, calib, test, images, PRIORS, settings)
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()

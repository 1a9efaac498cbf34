"""Cost of a repair against plain passes of the dense model, and where it goes, in one run.

Each case runs in a process of its own, so that the peak memory printed is that case's alone.  Two
plain passes stand around each repair and their mean is the unit, so that a machine that slows down
halfway does not count as a slow repair.
"""

from __future__ import annotations

import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table
from shapes import SHAPES, SMALL

import asr_onnx
from asr_onnx.cli.types import BYTES
from asr_onnx.execution.layer import StreamLayer
from asr_onnx.execution.lockstep import Lane, Lockstep
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.maths.least_squares import Refit
from asr_onnx.pruning.criteria import CRITERIA
from asr_onnx.solvers import prediction

STAGES: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("dense", Lockstep, ("run", "outputs")),
    ("moments", StreamLayer, ("moments", "_arrive")),
    ("gram", StreamLayer, ("gram",)),
    ("fit", Refit, ("__init__", "__call__")),
    ("judge", StreamLayer, ("error",)),
    ("apply", StreamLayer, ("rescale", "replace")),
    ("pruned", Lane, ("run_pruned", "outputs")),
    ("weigh", prediction, ("removal_errors",)),
)


class Stopwatch:
    """Seconds spent in functions, without those in others that are timed too."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to the stage's."""

        @functools.wraps(function)
        def inner(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                self.seconds[stage] += whole - self._inner.pop()
                self._inner[-1] += whole

        return inner


def measure(model: Path, images: int, recipe: str, batch: int, limit: int) -> dict[str, object]:
    """Seconds of a dense pass, of the whole repair and of its stages; peak memory in bytes."""
    proto = asr_onnx.load(model).proto
    inputs = model_inputs(proto)
    shape = [d or 1 for d in inputs[0].shape[1:]]
    data = np.random.default_rng(0).standard_normal((images, *shape), dtype=np.float32)
    passes = []

    def dense_pass() -> None:
        runner = Runner(proto, Device())
        for _ in range(2):
            start = time.perf_counter()
            for i in range(0, images, batch):
                runner.run({inputs[0].name: data[i : i + batch]})
            passes.append(time.perf_counter() - start)

    dense_pass()
    watch = Stopwatch()
    for stage, place, names in STAGES:
        for name in names:
            setattr(place, name, watch.timed(stage, getattr(place, name)))
    obs = CRITERIA["obs"]
    CRITERIA["obs"] = replace(obs, search=watch.timed("mask", obs.search))
    start = time.perf_counter()
    loaded = asr_onnx.load(model)
    samples = asr_onnx.as_batches(data, inputs, batch_size=batch, num_samples=images)
    options = asr_onnx.recipe(recipe, sparsity=0.9)
    execution = asr_onnx.Execution(providers="cpu", memory_limit=limit)
    result = asr_onnx.repair(loaded.proto, samples, options, execution=execution)
    with tempfile.TemporaryDirectory() as folder:
        asr_onnx.save(result.model, Path(folder) / "out.onnx")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    del loaded, result
    dense_pass()
    return {
        "dense": sum(passes) / len(passes),
        "repair": seconds,
        "peak": peak,
        "stages": {**watch.seconds, "other": seconds - watch.seconds.total()},
    }


@click.command()
@click.option("--model", "models", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option("--images", default=2048, show_default=True, help="For each --model and small shape.")
@click.option("--shape", "shapes", multiple=True, type=click.Choice([*SHAPES, *SMALL, "none"]))
@click.option("--shape-images", default=64, show_default=True)
@click.option("--recipe", "recipes", multiple=True, default=("asr", "refit", "best"))
@click.option("--batch-size", default=32, show_default=True)
@click.option("--shape-batch-size", default=8, show_default=True)
@click.option("--memory-limit", type=BYTES, default="1GiB", show_default=True)
@click.option("--one", nargs=4, hidden=True, help="MODEL IMAGES RECIPE BATCH: in this process.")
def main(
    models: tuple[Path, ...],
    images: int,
    shapes: tuple[str, ...],
    shape_images: int,
    recipes: tuple[str, ...],
    batch_size: int,
    shape_batch_size: int,
    memory_limit: int,
    one: tuple[str, str, str, str] | None,
) -> None:
    """Print the ratio of `repair`, and of its stages, to a dense pass, and peak memory."""
    if one:
        found = measure(Path(one[0]), int(one[1]), one[2], int(one[3]), memory_limit)
        click.echo(json.dumps(found))
        return
    stages = [*(stage for stage, _, _ in STAGES), "mask", "other"]
    table = Table(title=f"dense passes, limit {memory_limit / 2**30:g} GiB")
    for column in ("model", "images", "batch", "recipe", "pass s", "ratio", "peak GiB", *stages):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        cases = [(path, images, batch_size) for path in models]
        for name in shapes or SHAPES:
            if name != "none":
                path = Path(folder) / f"{name}.onnx"
                onnx.save_model((SHAPES | SMALL)[name](), path)
                sized = (images, batch_size) if name in SMALL else (shape_images, shape_batch_size)
                cases.append((path, *sized))
        for path, count, batch in cases:
            for recipe in recipes:
                command = [sys.executable, __file__, "--memory-limit", str(memory_limit)]
                command += ["--one", str(path), str(count), recipe, str(batch)]
                lines = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                found = json.loads(lines.splitlines()[-1])
                unit = found["dense"]
                table.add_row(
                    path.stem,
                    str(count),
                    str(batch),
                    recipe,
                    f"{unit:.2f}",
                    f"{found['repair'] / unit:.2f}",
                    f"{found['peak'] / 2**30:.2f}",
                    *(f"{found['stages'].get(s, 0.0) / unit:.2f}" for s in stages),
                )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()

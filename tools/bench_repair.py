"""Cost of a repair against one plain pass of the dense model, measured in one run.

Each case runs in a process of its own, so that the peak memory printed is that case's alone.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import asr_onnx
from asr_onnx.cli.types import BYTES
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import model_inputs

_BLOCKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class _Builder:
    """Nodes and weights of a network made up as it goes along."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, cin: int, cout: int, k: int, stride: int = 1) -> str:
        scale = np.sqrt(2 / (cin * k * k))
        w = self.weight(self.rng.standard_normal((cout, cin, k, k)) * scale)
        x = self.add("Conv", [x, w], pads=[k // 2] * 4, strides=[stride] * 2, kernel_shape=[k, k])
        ones, zeros = np.ones(cout), np.zeros(cout)
        norm = [self.weight(a) for a in (ones, zeros, zeros, ones)]
        return self.add("BatchNormalization", [x, *norm])


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """A network of ResNet-50's shape (He et al. 2015) with random weights."""
    b = _Builder(seed)
    x = b.add("Relu", [b.conv("input", 3, 64, 7, 2)])
    x = b.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    width = 64
    for planes, blocks, first in _BLOCKS:
        for number in range(blocks):
            stride = first if number == 0 else 1
            y = b.add("Relu", [b.conv(x, width, planes, 1)])
            y = b.add("Relu", [b.conv(y, planes, planes, 3, stride)])
            y = b.conv(y, planes, planes * 4, 1)
            if number == 0:
                x = b.conv(x, width, planes * 4, 1, stride)
            width = planes * 4
            x = b.add("Relu", [b.add("Add", [y, x])])
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x])])
    head = b.weight(b.rng.standard_normal((1000, width)) * 0.02)
    x = b.add("Gemm", [x, head, b.weight(np.zeros(1000))], transB=1)
    graph = helper.make_graph(
        b.nodes,
        "resnet50",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", 1000])],
        b.weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def measure(model: Path, images: int, recipe: str, batch: int, limit: int) -> dict[str, float]:
    """Seconds of one dense pass and of the whole repair, and peak memory in bytes."""
    proto = asr_onnx.load(model).proto
    inputs = model_inputs(proto)
    shape = [d or 1 for d in inputs[0].shape[1:]]
    data = np.random.default_rng(0).standard_normal((images, *shape), dtype=np.float32)
    runner = Runner(proto, Device())
    passes = []
    for _ in range(3):
        start = time.perf_counter()
        for i in range(0, images, batch):
            runner.run({inputs[0].name: data[i : i + batch]})
        passes.append(time.perf_counter() - start)
    del runner
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
    return {"dense": sorted(passes)[1], "repair": seconds, "peak": peak}


@click.command()
@click.option("--model", "models", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option("--images", default=2048, show_default=True, help="For each --model.")
@click.option("--resnet50/--no-resnet50", "with_resnet50", default=True, show_default=True)
@click.option("--recipe", default="asr", show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--memory-limit", type=BYTES, default="1GiB", show_default=True)
@click.option("--one", nargs=2, hidden=True, help="MODEL IMAGES: measure in this process.")
def main(
    models: tuple[Path, ...],
    images: int,
    with_resnet50: bool,
    recipe: str,
    batch_size: int,
    memory_limit: int,
    one: tuple[str, str] | None,
) -> None:
    """Print seconds, ratio and peak memory of `repair` for each case."""
    if one:
        found = measure(Path(one[0]), int(one[1]), recipe, batch_size, memory_limit)
        click.echo(json.dumps(found))
        return
    table = Table(
        title=f"recipe {recipe}, batches of {batch_size}, limit {memory_limit / 2**30:g} GiB"
    )
    for column in ("model", "images", "dense pass s", "repair s", "ratio", "peak GiB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        cases = [(path, images) for path in models]
        if with_resnet50:
            cases.append((Path(folder) / "resnet50-shaped.onnx", 64))
            onnx.save_model(resnet50(), cases[-1][0])
        for path, count in cases:
            command = [sys.executable, __file__, "--recipe", recipe, "--one", str(path), str(count)]
            command += ["--batch-size", str(batch_size), "--memory-limit", str(memory_limit)]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(lines.splitlines()[-1])
            table.add_row(
                path.stem,
                str(count),
                f"{found['dense']:.2f}",
                f"{found['repair']:.2f}",
                f"{found['repair'] / found['dense']:.2f}",
                f"{found['peak'] / 2**30:.2f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()

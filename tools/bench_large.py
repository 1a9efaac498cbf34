"""Peak memory of `inspect`, `prune` and `repair` on a model that is larger than protobuf allows.

The model is made up: convolutions of 1024 channels on small maps, all weights as external data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from asr_onnx.cli.types import BYTES
from asr_onnx.graph.model_file import files
from asr_onnx.graph.tensor_values import refer

_CHANNELS = 1024
_SIDE = 4  # of the maps
_SAMPLES = 8


def write_model(path: Path, size: int) -> None:
    """A residual network with about ``size`` bytes of weights in a data file."""
    rng = np.random.default_rng(0)
    data = path.with_suffix(".data")
    weights: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def conv(x: str, cin: int, gain: float) -> str:
        number, kernel = len(weights), (_CHANNELS, cin, 3, 3)
        array = rng.standard_normal(kernel, dtype=np.float32) * np.float32(gain / np.sqrt(9 * cin))
        weight = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=kernel)
        with data.open("ab") as file:
            refer(weight, data.name, file.tell())
            file.write(array.data)
        weights.append(weight)
        nodes.append(helper.make_node("Conv", [x, weight.name], [f"c{number}"], pads=[1] * 4))
        return f"c{number}"

    x = conv("x", 3, 1.0)
    while data.stat().st_size < size:
        y = conv(x, _CHANNELS, 0.3)
        nodes.append(helper.make_node("Relu", [y], [f"{y}_relu"]))
        nodes.append(helper.make_node("Add", [f"{y}_relu", x], [f"{y}_sum"]))
        x = f"{y}_sum"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["y"]))
    shapes = {"x": ["N", 3, _SIDE, _SIDE], "y": ["N", _CHANNELS, 1, 1]}
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in shapes.items()]
    graph = helper.make_graph(nodes, "large", *ends, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def run(words: list[str]) -> tuple[float, int]:
    """Seconds and peak memory in bytes of a command in a process of its own."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "asr_onnx", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise click.ClickException(f"'{' '.join(words)}' ended with {child.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def is_accepted(model: Path) -> bool:
    """Whether onnx accepts the model by its path."""
    try:
        onnx.checker.check_model(str(model))
    except onnx.checker.ValidationError:
        return False
    return True


@click.command()
@click.option("--size", type=BYTES, default="2.3GiB", show_default=True, help="Of the weights.")
@click.option("--memory-limit", type=BYTES, default="1GiB", show_default=True, help="Of repair.")
@click.option("--sparsity", default=0.5, show_default=True)
@click.option("--recipe", default="asr", show_default=True)
def main(size: int, memory_limit: int, sparsity: float, recipe: str) -> None:
    """Print time and peak memory of each command."""
    table = Table(title=f"sparsity {sparsity:g}, recipe {recipe}, {_SAMPLES} samples")
    for column in ("command", "seconds", "file GiB", "limit GiB", "peak GiB", "valid"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = folder / "large.onnx", folder / "x.npy"
        write_model(model, size)
        samples = np.random.default_rng(1).standard_normal((_SAMPLES, 3, _SIDE, _SIDE))
        np.save(data, samples.astype(np.float32))
        how = ["--sparsity", str(sparsity)]
        rest = ["--calib", str(data), "--num-samples", str(_SAMPLES), "--recipe", recipe]
        rest += ["--memory-limit", str(memory_limit), "--providers", "cpu", "--force"]
        commands = {"inspect": [], "prune": how, "repair": [*how, *rest]}
        for command, options in commands.items():
            out = folder / f"{command}.onnx"
            target = [] if command == "inspect" else ["-o", str(out)]
            seconds, peak = run([command, str(model), *options, *target])
            weights = sum(p.stat().st_size for p in files(model))
            table.add_row(
                command,
                f"{seconds:.1f}",
                f"{weights / 2**30:.2f}",
                f"{memory_limit / 2**30:.2f}" if command == "repair" else "",
                f"{peak / 2**30:.2f}",
                ("yes" if is_accepted(out) else "no") if target else "",
            )
            for path in files(out) if target else ():
                path.unlink()
    Console().print(table)


if __name__ == "__main__":
    main()

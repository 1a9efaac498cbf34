"""What the peers' runners share: the command line, calibration data, a count of the work.

Runs in a peer's own environment: numpy, onnx and the standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

BATCH = 64
Batch = dict[str, np.ndarray]
Runner = Callable[[Path, Path, Path, str, str], None]


def main(run: Runner) -> None:
    """``run(model, calibration, output, cell, variant)`` with the words of the command line."""
    model, calibration, output, cell, variant = sys.argv[1:]
    run(Path(model), Path(calibration), Path(output), cell, variant)


def batches(calibration: Path, size: int = BATCH) -> list[Batch]:
    """The model inputs of a ``.npz``, ``size`` samples at a time."""
    with np.load(calibration) as file:
        arrays = dict(file)
    count = len(next(iter(arrays.values())))
    return [{k: v[i : i + size] for k, v in arrays.items()} for i in range(0, count, size)]


class Reader:
    """Batches as ONNX Runtime's quantizer and those made after it ask for them."""

    def __init__(self, data: list[Batch]) -> None:
        self._data = data
        self.rewind()

    def get_next(self) -> Batch | None:
        """The next batch, ``None`` behind the last."""
        return next(self._left, None)

    def rewind(self) -> None:
        """Begin again."""
        self._left: Iterator[Batch] = iter(self._data)


def sparsity(cell: str) -> float:
    """The share of zeros a cell such as ``90`` asks for."""
    return int(cell) / 100


def macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of all Conv and Gemm of a model with one image as input."""
    model = onnx.shape_inference.infer_shapes(model)
    sizes = {i.name: list(i.dims) for i in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output)
    }
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            positions = int(np.prod(shapes[node.output[0]][2:]))
            total += int(np.prod(sizes[node.input[1]])) * positions
        elif node.op_type == "Gemm":
            total += int(np.prod(sizes[node.input[1]]))
    return total


def least(prune: Callable[[float], onnx.ModelProto], dense: int, share: float) -> onnx.ModelProto:
    """The model of the lowest percentage handed to ``prune`` that leaves ``share`` of the MACs."""
    low, high = 0, 99
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if macs(prune(middle / 100)) <= share * dense else (middle, high)
    return prune(high / 100)

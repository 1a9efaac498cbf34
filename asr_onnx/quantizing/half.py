"""Half precision: what may becomes float16, is tried on the data, and what fails stays float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, Feeds, Outputs
from asr_onnx.data.batches import Batch, Batches
from asr_onnx.errors import ModelError
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.records import Skipped
from asr_onnx.graph.stored import tensors
from asr_onnx.maths.float16 import LARGEST, tolerance
from asr_onnx.parallel import Progress
from asr_onnx.quantizing.half_choice import Plan, measured, plan
from asr_onnx.quantizing.half_graph import converted, rounded

_MOST = 8  # nodes that are found by trying; where there are more, none is to blame
_CURE = "keep precision float32, or try int8"


@dataclass(frozen=True)
class Halved:
    """A model in float16.

    ``kept``: the nodes that stay in float32, and why.  ``tiny``: weights below float16's smallest
    number, which became it.  ``outputs`` are those of the batches checked on.
    """

    model: onnx.ModelProto
    kept: tuple[Skipped, ...]
    tiny: int
    outputs: Sequence[Outputs]


def require_float32(model: onnx.ModelProto) -> None:
    """Raise ``ModelError`` for a model that is float16 already."""
    kinds = (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    half, whole = (
        sum(math.prod(t.dims) for t in tensors(model) if t.data_type == kind) for kind in kinds
    )
    if half > whole:
        raise ModelError(
            "the model's weights are float16 already, so there is nothing to convert: leave out "
            "precision float16"
        )


def halved(
    model: onnx.ModelProto,
    batches: Batches,
    device: Device,
    expected: Sequence[Outputs],
    float32_io: bool = True,
    exclude: str | None = None,
    progress: Progress | None = None,
) -> Halved:
    """The model in float16, with outputs like those ``expected`` of the batches checked on.

    Inputs and outputs stay float32 with ``float32_io``, nodes that ``exclude`` finds in any case.
    Raises ``ModelError`` where rounding takes the outputs further than it should.
    """
    found = plan(model, measured(model, batches, device, progress), exclude)
    if not float32_io:
        _check_ends(found)
    while worst := _worst(found, batches, device, expected):
        _keep_one_more(found, batches.feeds(worst.batch), device, expected[worst.number], worst)
    result, tiny = converted(found, float32_io)
    runner = Runner(result, device)
    outputs = [runner.run(batches.feeds(b)) for b in batches.checked]
    off = _off(outputs, expected)
    limit = tolerance(len(found.halves))
    if wrong := {n: v for n, v in off.items() if not v <= limit}:
        name, value = next(iter(wrong.items()))
        raise ModelError(
            f"output '{name}' of the model in float16 is off by {value:.2g} of its spread, more "
            f"than rounding explains: {_CURE}"
        )
    nodes = found.topology.nodes
    kept = (Skipped(nodes[i].name or nodes[i].output[0], nodes[i].op_type, reason)
            for i, reason in sorted(found.kept.items()) if _is_told(nodes[i]))  # fmt: skip
    return Halved(result, tuple(kept), tiny, outputs)


def _is_told(node: onnx.NodeProto) -> bool:
    """Whether it makes a difference that a node stays in float32."""
    return node.op_type not in ("Shape", "Size")


def _check_ends(plan: Plan) -> None:
    """Refuse inputs and outputs that float16 cannot hold, or that bodies read as they are."""
    topology = plan.topology
    for name in (*topology.inputs, *topology.outputs):
        reaches = plan.ranges[name].largest if name in plan.ranges else 0.0
        if reaches > LARGEST:
            raise ModelError(
                f"'{name}' reaches {reaches:.3g}, float16 ends at {LARGEST:g}: keep float32 inputs "
                "and outputs"
            )
    if any(topology.has_subgraph(i) for i in range(len(topology.nodes))):
        raise ModelError("a node with a body reads float32: keep float32 inputs and outputs")


@dataclass(frozen=True)
class _Worst:
    """The batch, number ``number`` of those checked on, whose outputs are off by most."""

    number: int
    batch: Batch
    output: str
    off: float


def _worst(
    plan: Plan, batches: Batches, device: Device, expected: Sequence[Outputs]
) -> _Worst | None:
    """The batch on which the network fails with its tensors rounded; ``None`` if it does not."""
    runner, limit = Runner(rounded(plan), device), tolerance(len(plan.halves))
    worst: _Worst | None = None
    for number, batch in enumerate(batches.checked):
        off = _off([runner.run(batches.feeds(batch))], [expected[number]])
        for name, value in off.items():
            if not value <= limit and (worst is None or value > worst.off):
                worst = _Worst(number, batch, name, value)
    return worst


def _keep_one_more(
    plan: Plan, feeds: Feeds, device: Device, expected: Outputs, worst: _Worst
) -> None:
    """Find the node at which a network that is rounded from its input on begins to fail: bisect.

    Raises ``ModelError`` when that was done too often.
    """
    limit, order = tolerance(len(plan.halves)), plan.halves
    low, high = 0, len(order)  # up to low nodes it does well, up to high it fails
    tried = sum("found by trying" in reason for reason in plan.kept.values())
    if tried < _MOST:
        while high - low > 1:
            middle = (low + high) // 2
            runner = Runner(rounded(plan, order[middle:]), device, once=True)
            off = _off([runner.run(feeds)], [expected])
            fails = any(not value <= limit for value in off.values())
            low, high = (low, middle) if fails else (middle, high)
    if tried == _MOST or not order:
        raise ModelError(
            f"output '{worst.output}' is off by {worst.off:.2g} of its spread in float16, with "
            f"{len(plan.kept)} nodes in float32: {_CURE}"
        )
    plan.kept[order[high - 1]] = (
        f"found by trying: rounded, it takes '{worst.output}' off by {worst.off:.2g} of its spread"
    )


def _off(outputs: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
    """By output the largest error of a batch, over the spread of what was expected.

    Infinity where a number became NaN or infinity; outputs of another shape, as detections that
    are listed, say nothing.
    """
    found: dict[str, float] = {}
    for mine, theirs in zip(outputs, expected, strict=True):
        for name, value in mine.items():
            a, b = np.asarray(value), np.asarray(theirs[name])
            if b.dtype.kind == "f" and a.shape == b.shape and b.size:
                found[name] = max(found.get(name, 0.0), _error(a, b))
    return found


def _error(other: AnyArray, exact: AnyArray) -> float:
    finite = np.isfinite(exact)
    if not np.isfinite(other[finite]).all():
        return float("inf")
    a, b = (np.asarray(v[finite], np.float64) for v in (other, exact))
    spread = float(np.linalg.norm(b - b.mean())) if b.size > 1 else 0.0
    error = float(np.linalg.norm(a - b))
    return error / (spread or float(np.linalg.norm(b)) or 1.0)

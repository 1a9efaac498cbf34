"""Re-estimate BatchNormalization statistics the way PyTorch's training mode does.

Kept for comparison and to reproduce arXiv 2605.21426: a *converged* re-estimation cancels any
per-channel scale in front of the BatchNormalization, and on clean images it costs accuracy even
with no pruning at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from asr_onnx.arrays import AnyArray, FloatArray
from asr_onnx.data.batches import Batch, Batches
from asr_onnx.errors import ModelError
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph import model_file
from asr_onnx.graph.records import Norm, Patch
from asr_onnx.graph.sites import find_norms
from asr_onnx.graph.tensor_values import Held
from asr_onnx.options import RepairOptions


def reestimate(
    proto: onnx.ModelProto, calibration: Batches, options: RepairOptions, device: Device
) -> onnx.ModelProto:
    """A copy of the model with new running statistics in every BatchNormalization.

    ``options.bn_stats``: ``cumulative`` averages over all batches of ``bn_batch_size``, ``ema``
    runs ``bn_batches`` batches from mean 0 and variance 1 with ``bn_momentum``, beginning anew
    when the images run out.  While they run, every layer normalises with its batch's statistics.

    Raises ``ModelError`` when the model has no BatchNormalization whose statistics can be written.
    """
    norms = require_norms(proto, options.bn_stats)
    runner = Runner(with_batch_statistics(proto, [n.output for n in norms]), device)
    rows = _batches(calibration, options)
    running = {n.output: (np.zeros(n.mean.value.size), np.ones(n.mean.value.size)) for n in norms}
    for number, batch in enumerate(rows):
        results = runner.run(calibration.feeds(batch))
        share = options.bn_momentum if options.bn_stats == "ema" else 1 / (number + 1)
        running = {k: _mixed(v, _batch_statistics(results, k), share) for k, v in running.items()}
    values: dict[str, Held] = {}
    for norm in norms:
        for parameter, value in zip((norm.mean, norm.var), running[norm.output], strict=True):
            assert parameter.storage is not None
            values[parameter.storage.name] = parameter.storage.pack(value)
    return model_file.apply(proto, Patch(values))


def require_norms(proto: onnx.ModelProto, how: str) -> list[Norm]:
    """The BatchNormalizations that can be re-estimated; ``ModelError`` when there are none."""
    norms = find_norms(proto)
    if not norms:
        raise ModelError(
            f"--bn-stats {how} needs BatchNormalization with constant statistics, "
            "and the model has none (folded at export?): use --bn-stats dense"
        )
    return norms


def _mixed(
    old: Sequence[FloatArray], new: Sequence[FloatArray], share: float
) -> tuple[FloatArray, FloatArray]:
    mean, var = ((1 - share) * a + share * b for a, b in zip(old, new, strict=True))
    return mean, var


def _batch_statistics(results: Mapping[str, AnyArray], norm: str) -> tuple[FloatArray, FloatArray]:
    """Mean and unbiased variance, as PyTorch stores them."""
    mean, var, count = (results[norm + suffix].astype(np.float64) for suffix in _SUFFIXES)
    n = float(count.prod())
    return mean, var * n / max(n - 1, 1)


def _batches(calibration: Batches, options: RepairOptions) -> Iterator[Batch]:
    samples = [i for b in calibration.batches if not b.held_out for i in b.samples]
    size = calibration.fixed_batch or min(options.bn_batch_size, len(samples))
    whole = len(samples) // size
    count = options.bn_batches if options.bn_stats == "ema" else whole
    for number in range(count):
        start = number * size if number < whole else number % whole * size
        yield Batch(number, tuple(samples[start : start + size]), held_out=False)


_SUFFIXES = ("//mean", "//var", "//count")


def with_batch_statistics(proto: onnx.ModelProto, norms: Sequence[str]) -> onnx.ModelProto:
    """A throw-away model whose BatchNormalizations with outputs ``norms`` use batch statistics.

    ``<output>//mean`` (C,), ``//var`` (C,) (biased) and ``//count`` become graph outputs.
    """
    graph = gs.import_onnx(proto)
    by_output = {n.outputs[0].name: n for n in graph.nodes if n.outputs}
    for name in norms:
        node = by_output[name]
        mean, var, count = (gs.Variable(name + s, dtype=np.float32) for s in _SUFFIXES)
        graph.nodes.extend(_statistics(graph.opset, name, node.inputs[0], mean, var, count))
        node.inputs[3], node.inputs[4] = mean, var
        graph.outputs += [mean, var, count]
    result: onnx.ModelProto = gs.export_onnx(graph.toposort(), do_type_check=False)
    for output in result.graph.output:
        output.ClearField("type")  # a dtype had to be given; ONNX Runtime knows better
    return result


def _statistics(
    opset: int, name: str, x: gs.Tensor, mean: gs.Variable, var: gs.Variable, count: gs.Variable
) -> Iterator[gs.Node]:
    """Nodes for mean and variance over all axes but the second, of an input of any rank."""

    def new(suffix: str) -> gs.Variable:
        return gs.Variable(f"{name}//{suffix}")

    def constant(suffix: str, value: list[int]) -> gs.Constant:
        return gs.Constant(f"{name}//{suffix}", np.array(value, np.int64))

    flat, kept, centred, squares = (new(s) for s in ("flat", "kept", "centred", "squares"))
    columns, vector = constant("columns", [0, 0, -1]), constant("vector", [-1])
    axes = constant("axes", [0, 2])

    def reduce_mean(source: gs.Tensor, target: gs.Tensor, keep: int) -> gs.Node:
        if opset >= 18:
            return gs.Node("ReduceMean", None, {"keepdims": keep}, [source, axes], [target])
        return gs.Node("ReduceMean", None, {"axes": [0, 2], "keepdims": keep}, [source], [target])

    dims = new("dims")
    yield gs.Node("Reshape", None, {}, [x, columns], [flat])
    yield reduce_mean(flat, kept, 1)
    yield gs.Node("Reshape", None, {}, [kept, vector], [mean])
    yield gs.Node("Sub", None, {}, [flat, kept], [centred])
    yield gs.Node("Mul", None, {}, [centred, centred], [squares])
    yield reduce_mean(squares, var, 0)
    yield gs.Node("Shape", None, {}, [flat], [dims])
    yield gs.Node("Gather", None, {"axis": 0}, [dims, axes], [count])

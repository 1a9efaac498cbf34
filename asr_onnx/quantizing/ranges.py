"""Ranges of activations, measured on the calibration data a batch at a time: none is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray
from asr_onnx.data.batches import Batch, Batches
from asr_onnx.errors import CalibrationError, ModelError
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.cut import Network
from asr_onnx.maths.clipping import Grid, Histogram, Rule
from asr_onnx.parallel import Progress

_TOGETHER = 1 << 28  # bytes of activations that a run may return


def ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Batches,
    device: Device,
    rule: Rule,
    grid: Grid,
    progress: Progress | None = None,
) -> dict[str, tuple[float, float]]:
    """The range of each tensor of the network, by ``rule``, on the samples solved on.

    Two passes: the first finds the ends, the second what lies between.
    Raises ``CalibrationError`` for activations that are not finite.
    """
    run = Passes(model, tensors, batches, device, progress)
    run.require_float32()
    ends: dict[str, tuple[float, float]] = {}
    for tensor, values in run(0):
        low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
        if not math.isfinite(low) or not math.isfinite(high):
            raise CalibrationError(
                f"activation '{tensor}' is not finite on the calibration data: check the "
                "preprocessing"
            )
        before = ends.get(tensor, (0.0, 0.0))
        ends[tensor] = min(low, before[0]), max(high, before[1])
    found = {tensor: Histogram.between(*ends[tensor]) for tensor in tensors}
    for tensor, values in run(1):
        found[tensor].add(values)
    return {tensor: rule(histogram, grid) for tensor, histogram in found.items()}


class Passes:
    """A network's tensors on the samples solved on, as many in a run as fit into memory.

    ``types`` are those of the tensors that are arrays, ``total`` the passes that are to be told of.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Sequence[str],
        batches: Batches,
        device: Device,
        progress: Progress | None,
        total: int = 2,
        only: np.dtype[np.generic] | None = None,
    ) -> None:
        self._batches, self._progress, self._total = batches, progress, total
        self._chosen = [b for b in batches.batches if not b.held_out]
        network, one = Network.of(model), batches.one()
        feeds = batches.feeds(one)
        self._inputs = [t for t in tensors if t in feeds]
        made = [t for t in tensors if t not in feeds]
        self.types = {t: feeds[t].dtype for t in self._inputs}
        self._runners: list[Runner] = []
        if not made:
            return
        segment = network.segment(network.topology.ancestors(made, set()), made, feeds)
        assert segment, "tensors are computed"
        runner = Runner(segment.model, device, made, weights=segment.weights)
        found = {n: v for n, v in runner.run(feeds).items() if isinstance(v, np.ndarray)}
        self.types |= {name: value.dtype for name, value in found.items()}
        taken = sum(v.nbytes for v in found.values() if only is None or v.dtype == only)
        if batches.fixed_batch is None:  # fewer samples take no longer, running from anew does
            self._chosen = list(_cut(self._chosen, max(1, _TOGETHER // max(taken, 1))))
        scale = max(len(b.samples) for b in self._chosen) / len(one.samples)
        groups: list[list[str]] = [[]]
        room = float(_TOGETHER)
        for name, value in found.items():
            if only is not None and value.dtype != only:
                continue
            size = value.nbytes * scale
            if groups[-1] and size > room:
                groups.append([])
                room = float(_TOGETHER)
            groups[-1].append(name)
            room -= size
        for group in filter(None, groups):
            part = network.segment(network.topology.ancestors(group, set()), group, feeds)
            assert part
            self._runners.append(Runner(part.model, device, group, weights=part.weights))

    def require_float32(self) -> None:
        """Raise ``ModelError`` where a tensor is none that integers can take the place of."""
        for name, kind in self.types.items():
            if kind != np.float32 and name not in self._inputs:
                raise ModelError(
                    f"activation '{name}' is {kind}: int8 takes the place of float32, so export "
                    "the model in float32"
                )

    def __call__(self, number: int) -> Iterator[tuple[str, AnyArray]]:
        total = self._total * len(self._chosen)
        for done, batch in enumerate(self._chosen):
            if self._progress:
                self._progress(number * len(self._chosen) + done, total, "ranges of activations")
            yield from self._values(batch)

    def _values(self, batch: Batch) -> Iterator[tuple[str, AnyArray]]:
        feeds = self._batches.feeds(batch)
        yield from ((name, feeds[name]) for name in self._inputs)
        for runner in self._runners:
            yield from runner.run(feeds).items()


def _cut(batches: Iterable[Batch], most: int) -> Iterator[Batch]:
    """The batches in pieces of at most so many samples."""
    for batch in batches:
        for start in range(0, len(batch.samples), most):
            yield replace(batch, samples=batch.samples[start : start + most])

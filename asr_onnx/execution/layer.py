"""One layer of a network that is being repaired, as a solver sees it: arrays and statistics.

What ``solvers.correction.Layer`` asks for is gathered here, from the dense and the repaired stream.
Nothing is run before a solver asks: statistics of the output need the site's output alone, second
moments need its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import AnyArray, Float32Array, FloatArray
from asr_onnx.execution.blocks import Block, Blocks
from asr_onnx.execution.chunks import Chunk
from asr_onnx.execution.frames import Frames
from asr_onnx.execution.plan import Stage
from asr_onnx.execution.stream import Stream, Use
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Site
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.maths.activations import Activation, recognised, relu
from asr_onnx.maths.moments import PairedMoments, paired_moments, pooled, rescaled
from asr_onnx.maths.second_moments import Gram, GramSums
from asr_onnx.maths.targets import Goal
from asr_onnx.parallel import each

_SIDE_BY_SIDE = 1 << 23  # elements of second moments, which each block by itself has


class Split(NamedTuple):
    """Numbers of the batches that are solved on, and of those that results are checked on."""

    solved_on: frozenset[int]
    checked_on: frozenset[int]

    def checked(self, parts: Iterable[tuple[int, PairedMoments]]) -> PairedMoments:
        """The moments over the batches checked on."""
        return pooled(m for batch, m in parts if batch in self.checked_on)

    def solved(self, parts: Iterable[tuple[int, PairedMoments]]) -> PairedMoments:
        """The moments over the batches solved on."""
        return pooled(m for batch, m in parts if batch in self.solved_on)


def against(dense: Stream, site: Site) -> Use[tuple[int, PairedMoments]]:
    """For a stream's run: moments of each batch's output of ``site`` with the dense one."""

    def pair(batch: int, results: Mapping[str, AnyArray]) -> tuple[int, PairedMoments]:
        wanted = dense[batch, site.output]
        return batch, paired_moments(wanted, results[site.output], site.axis)

    return pair


class StreamLayer:
    """The site that ``step`` leads to, with all the repaired stream's batches in front of it.

    ``rows`` (G, R, K) and ``bias`` (C,) are its parameters, ``gain`` (G, R) what the output is
    multiplied by behind it.  A solver's answer takes the stream on: ``rescale`` or ``replace``.
    """

    def __init__(
        self,
        dense: Stream,
        repaired: Stream,
        split: Split,
        step: Stage,
        arrived: bool = False,
        last: bool = False,
    ) -> None:
        (self.site,) = step.sites
        self._dense, self._repaired, self._split, self._step = dense, repaired, split, step
        self._arrived = arrived  # whether the site's input is live
        self._parts: list[tuple[int, PairedMoments]] = []
        self._inputs: FloatArray | None = None
        self._frame = Frames(dense, repaired, self.site, min(split.solved_on))
        site = self.site
        self.label = site.label
        self.rows: FloatArray = np.asarray(to_rows(site, site.weight.value), np.float64)
        self.bias: FloatArray = site.bias_value
        self.gain: FloatArray = site.behind[0].reshape(self.rows.shape[:2])
        self.linear = OPERATORS[site.op].linear
        self.last = last
        self.workers = repaired.workers

    @cached_property
    def activation(self) -> Activation | None:
        """What the sum behind goes through, (P, C) -> (P, C)."""
        behind, site = self.site.activation, self.site
        if behind is None or behind.relu:
            return relu if behind else None
        self._arrive()
        sums = self._blocks[self._blocks.chunks[0]].dense_sum
        low, high = float(sums.min()), float(sums.max())
        dense = self._dense[min(self._split.solved_on), site.output]
        function = self._repaired.function(behind, dense.ndim, site.axis, dense.dtype)
        return recognised(function, low, high, site.channels)

    def weight(self, rows: FloatArray) -> AnyArray:
        """Rows (G, R, K) as the site stores them, in its dtype."""
        return from_rows(self.site, rows).astype(self.site.weight.value.dtype)

    def moments(self, rows: FloatArray) -> PairedMoments:
        """Moments of the dense output and of the output under ``rows``, on the images solved on.

        The latter stays live in the repaired stream.
        """
        use = against(self._dense, self.site)
        weights = [(self.site, self.weight(rows))]
        self._parts = self._repaired.run(self._step, weights, use=use)
        return self._split.solved(self._parts)

    def gram(
        self,
        goal: Goal | None = None,
        rows: FloatArray | None = None,
        bias: FloatArray | None = None,
    ) -> Gram:
        """Second moments of the patches of the repaired input with the output to aim at.

        Without a ``goal`` that is the one with which the repaired network has the dense one's sum,
        shortcut included; a goal makes the sum to aim at of the dense one and of what ``rows`` and
        ``bias`` give.
        """
        self._arrive()
        if goal is None or rows is None or bias is None:
            found = self._summed(lambda block: block.dense_sum)
            self._inputs = found.inputs
            return found
        weights = rows.astype(np.float32).transpose(0, 2, 1)
        assert self._blocks.offset is not None
        shift = bias.astype(np.float32) + (self._blocks.offset @ weights).reshape(-1)

        def target(block: Block) -> Float32Array:
            fitted = np.moveaxis(block.columns @ weights, 0, 1).reshape(block.dense.shape)
            fitted += shift
            return goal(block.dense_sum, block.frame.repaired_sum(fitted))

        return self._summed(target, self._inputs)

    def error(self, rows: FloatArray, bias: FloatArray) -> float:
        """Squared error behind the site, its rectifier included, on the images checked on."""
        self._arrive()
        site = self.site

        def squared(batch: int, results: Mapping[str, AnyArray]) -> float:
            frame = self._frame(lambda part: part(batch, slice(None)), self._flat)
            a = frame.dense_sum(self._flat(self._dense[batch, site.output]))
            b = frame.repaired_sum(self._flat(results[site.output]))
            if self.activation:
                a, b = self.activation(a), self.activation(b)
            return float(np.square(a - b, dtype=np.float64).sum())

        batches = sorted(self._split.checked_on)
        return math.fsum(self._repaired.trial(site, self.weight(rows), bias, batches, squared))

    def spread(self) -> float:
        """Variance of what the dense network passes on behind the site, over all channels."""
        self._arrive()
        total, count = np.zeros((2, self.site.channels)), 0
        for chunk in self._blocks.chunks:
            y = self._blocks[chunk].dense_sum
            y = np.asarray(self.activation(y) if self.activation else y, np.float64)
            total += y.sum(axis=0), np.square(y).sum(axis=0)
            count += len(y)
        mean, square = total / count
        return float(np.maximum(square - mean**2, 0.0).sum())

    def rescale(self, gamma: FloatArray, shift: FloatArray, keep: bool = False) -> PairedMoments:
        """Let the output be ``gamma * y + shift`` of the live output ``y``; moments checked on.

        With ``keep`` the stream goes on as if it were not.
        """
        if not keep:
            self._repaired.rescale(self.site, gamma, shift)
        self._repaired.finish(self._step)
        return rescaled(self._split.checked(self._parts), gamma, shift)

    def replace(self, rows: FloatArray, bias: FloatArray) -> PairedMoments:
        """Run the site with other parameters; moments of the images checked on."""
        self._arrive()
        use = against(self._dense, self.site)
        parts = self._repaired.execute(self.site, self.weight(rows), bias, use=use)
        self._repaired.finish(self._step)
        return self._split.checked(parts)

    def _flat(self, y: AnyArray) -> Float32Array:
        """A tensor like the site's output as rows (P, C)."""
        return np.moveaxis(y, self.site.axis, -1).reshape(-1, self.site.channels)

    def _arrive(self) -> None:
        if not self._arrived:
            self._repaired.run(self._step, use=lambda batch, _: None, taps=[self.site.input])
            self._arrived = True

    def _summed(
        self, target: Callable[[Block], Float32Array], inputs: FloatArray | None = None
    ) -> Gram:
        """Moments of the patches with the outputs that lead to the sums ``target`` wants.

        Blocks side by side where their sums are not too large, else BLAS has all threads.
        """
        first, *others = self._blocks.chunks

        def add(sums: GramSums, block: Block) -> GramSums:
            sums.update(block.columns, block.frame.output_for(target(block), block.dense))
            return sums

        block = self._blocks[first]
        sums = add(GramSums(inputs, offset=self._blocks.offset), block)
        if self.rows.shape[0] * self.rows.shape[2] ** 2 > _SIDE_BY_SIDE:
            for block in each(self._blocks.__getitem__, others, self.workers):
                add(sums, block)
            return sums.result()

        def alone(chunk: Chunk) -> GramSums:
            return add(GramSums(inputs, sums.pilot, self._blocks.offset), self._blocks[chunk])

        with threadpool_limits(1, user_api="blas"):
            for more in each(alone, others, self.workers):
                sums.add(more)
        return sums.result()

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self._dense, self._repaired, self.site, self._split.solved_on, self._frame)

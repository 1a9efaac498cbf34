"""Solve one site with second moments: choose the mask, re-fit what survives, keep the better.

One pass over the data gives the moments, each turn towards a rectified target another.  What the
re-fit gains is measured on the held-out images; a site where scaling does better is scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.execution.lockstep import Walk
from asr_onnx.execution.plan import Step
from asr_onnx.graph.im2col import Patches, Rows, patches
from asr_onnx.graph.records import AnyArray, Site
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.maths.least_squares import RIDGE, bias, refit, restore_variance
from asr_onnx.maths.mask_search import Project, select
from asr_onnx.maths.masks import Mask
from asr_onnx.maths.moments import Moments, PairedMoments
from asr_onnx.maths.scale_rules import scale
from asr_onnx.maths.second_moments import Array, Gram, GramSums
from asr_onnx.maths.targets import Frame, rectified
from asr_onnx.options import RepairOptions
from asr_onnx.parallel import each, processors
from asr_onnx.solvers.scale import Solution, bias_of, require_finite

TURNS = 3  # re-fits towards the rectified target
POWER = 0.5  # of the variance correction
HEAD_RIDGE = 0.1  # linear heads have few positions for many weights

_WORTH_THREADS = 1024  # inputs per row from which BLAS threads gain more than they lose waiting
_SUMS_PER_BATCH = 2048  # inputs per row up to which every batch can have its own sums
_POSITIONS_PER_INPUT = 400  # positions used per entry of a row, at least _POSITIONS
_POSITIONS = 1 << 17


def solve_refit(
    walk: Walk, step: Step, site: Site, choice: Mask | Project, options: RepairOptions
) -> Solution:
    """The site's solution by second moments.

    ``choice`` is its mask, or what a mask may be (then it is selected here).  Without
    ``options.reconstruct`` the selected weights are scaled, not re-fitted.
    """
    walk.repaired.run(step, use=lambda batch, results: None, taps=[site.input])
    data = _Data(walk, site)
    with threadpool_limits(1 if data.narrow else processors(), user_api="blas"):
        return _solve(data, site, choice, options)


def _solve(data: _Data, site: Site, choice: Mask | Project, options: RepairOptions) -> Solution:
    old = np.asarray(to_rows(site, site.weight.value), np.float64)
    gram = data.gram()
    require_finite(site, output=(gram.mean_y, gram.var_y), input=(gram.mean_x, gram.inputs))
    if callable(choice):
        gain = np.abs(site.behind[0]).reshape(old.shape[:2])
        rows_mask = select(gram, old, gain, choice)
        mask = from_rows(site, rows_mask)
    else:
        mask, rows_mask = choice, np.asarray(to_rows(site, choice), bool)
    scaled = _scaled(site, gram, np.where(rows_mask, old, 0.0), options)
    if not options.reconstruct:
        return _solution(site, mask, *scaled)
    head = site.op in ("Gemm", "MatMul") and bool(mask.all())
    fit = partial(
        refit,
        old=old,
        mask=rows_mask,
        share=HEAD_RIDGE if head else RIDGE,
        workers=data.workers,
    )
    rows = fit(gram)
    for _ in range(TURNS if site.rectified else 0):
        gram = data.cross(rows, bias(gram, rows), gram.inputs)
        rows = fit(gram)
    rows = restore_variance(rows, gram, 0.0 if head else POWER)
    fitted = (rows, bias(gram, rows) - bias_of(site), *scaled[2:])
    best = min((fitted, scaled), key=lambda s: data.error(s[0], s[1]))
    return _solution(site, mask, *best)


def _solution(
    site: Site, mask: Mask, rows: Array, change: Array, gamma: Array, reliability: Array
) -> Solution:
    weight = from_rows(site, rows).astype(site.weight.value.dtype)
    return Solution(weight, change, mask, gamma, reliability)


def _scaled(
    site: Site, gram: Gram, rows: Array, options: RepairOptions
) -> tuple[Array, Array, Array, Array]:
    """Scaled rows, change of bias, gamma, reliability; statistics come from the moments."""
    offset = bias_of(site)
    mean = np.vecdot(rows, gram.mean_x[:, None, :]).reshape(-1) + offset
    moments = PairedMoments(
        Moments(gram.count, gram.mean_y.reshape(-1), gram.var_y.reshape(-1)),
        Moments(gram.count, mean, gram.output_variance(rows).reshape(-1)),
        np.vecdot(rows, gram.cross).reshape(-1),
    )
    found = scale(moments, options.method, options.prior)
    change = moments.dense.mean - found.gamma * mean + (found.gamma - 1) * offset
    if options.method == "none":
        change = np.zeros(site.channels)
    scaled = rows * found.gamma.reshape(*rows.shape[:2], 1)
    return scaled, change, found.gamma, found.reliability


class _Data:
    """The site's patches and targets, cut anew, at the same positions, for each pass."""

    def __init__(self, walk: Walk, site: Site) -> None:
        self._walk, self._site = walk, site
        sample = next(iter(walk.solved_on))
        y = walk.dense[sample, site.output]
        total = math.prod(y.shape) // site.channels * len(walk.solved_on)
        wanted = max(_POSITIONS, _POSITIONS_PER_INPUT * site.weight.value.size // site.channels)
        self._share = min(1.0, wanted / total)
        inputs = site.weight.value.size // site.channels
        self.narrow = inputs < _WORTH_THREADS
        self._side_by_side = inputs < _SUMS_PER_BATCH
        self.workers = walk.repaired.workers

    def gram(self) -> Gram:
        """Moments of the patches with the dense outputs, corrected for the shortcut."""
        return self._summed(lambda part, frame, dense: frame.dense_sum(dense))

    def cross(self, rows: Array, offset: Array, inputs: Array) -> Gram:
        """Moments with the rectified targets that follow from what ``rows`` give now."""
        weights = rows.astype(np.float32).transpose(0, 2, 1)
        shift = offset.astype(np.float32)

        def goal(part: Patches, frame: Frame, dense: Rows) -> Rows:
            fitted = np.moveaxis(part.columns @ weights, 0, 1).reshape(dense.shape)
            fitted += shift
            return rectified(frame.dense_sum(dense), frame.repaired_sum(fitted))

        return self._summed(goal, inputs)

    def _summed(
        self, goal: Callable[[Patches, Frame, Rows], Rows], inputs: Array | None = None
    ) -> Gram:
        """Moments of the patches with the outputs that lead to the sums ``goal`` wants.

        Batches side by side where their sums are small, else BLAS has all threads.
        """

        def add(sums: GramSums, batch: int) -> GramSums:
            for part, frame, dense in self._parts(batch):
                sums.update(part.columns, frame.output_for(goal(part, frame, dense), dense))
            return sums

        first, *others = sorted(self._walk.solved_on)
        sums = add(GramSums(inputs), first)
        if self.narrow:
            for more in each(lambda b: add(GramSums(inputs, sums.pilot), b), others, self.workers):
                sums.add(more)
        else:
            for batch in others:
                add(sums, batch)
        return sums.result()

    def error(self, rows: Array, change: Array) -> float:
        """Squared error behind the site, its rectifier included, on the images checked on."""
        site, walk = self._site, self._walk
        weight = from_rows(site, rows).astype(site.weight.value.dtype)

        def flat(y: AnyArray) -> AnyArray:
            return np.moveaxis(y, site.axis, -1).reshape(-1, site.channels)

        def squared(batch: int, results: Mapping[str, AnyArray]) -> float:
            frame = self._frame(batch, flat)
            a = frame.dense_sum(flat(walk.dense[batch, site.output]))
            b = frame.repaired_sum(flat(results[site.output]))
            if site.rectified:
                a, b = np.maximum(a, 0), np.maximum(b, 0)
            return float(np.square(a - b, dtype=np.float64).sum())

        offset = bias_of(site) + change
        return sum(walk.repaired.trial(site, weight, offset, sorted(walk.checked_on), squared))

    def _parts(self, batch: int) -> Iterator[tuple[Patches, Frame, Rows]]:
        site, walk = self._site, self._walk
        y = walk.dense[batch, site.output]
        x = walk.repaired[batch, site.input]
        node = walk.repaired.node(site)
        for part in patches(site, node, x, y, self._share, seed=batch):
            yield part, self._frame(batch, part.rows), part.rows(y)

    def _frame(self, batch: int, rows: Callable[[AnyArray], Rows]) -> Frame:
        gain, offset = (v.astype(np.float32) for v in self._site.behind)
        shortcuts = self._walk.shortcuts(self._site, batch)
        if shortcuts is None:
            return Frame(gain, offset[None], offset[None])
        dense, repaired = (rows(s).astype(np.float32) + offset for s in shortcuts)
        return Frame(gain, dense, repaired)

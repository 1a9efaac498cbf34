"""What a repair returns: the model, and what happened at each site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import FloatArray
from asr_onnx.displayed import Displayed
from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.evaluation.samples import Answers
from asr_onnx.graph.cost import Cost, cost_of
from asr_onnx.graph.records import Site, Skipped
from asr_onnx.maths.moments import PairedMoments
from asr_onnx.options import RepairOptions
from asr_onnx.pruning.channels import Width
from asr_onnx.quantizing.checks import InIntegers
from asr_onnx.solvers.correction import Correction

_NOTHING = 0.005  # of an output's spread: below it nobody sees a difference
_BY_DESIGN = 1.1  # times the error that giving a layer its variance back may cost


@dataclass(frozen=True)
class SiteReport:
    """One site before and after; variances and errors over the held-out images.

    ``pruned``: whether the site was to be pruned, or only repaired.
    ``zeros_before``/``zeros`` count zero weights of ``weights``; ``dead`` output channels have no
    weight left.  ``gamma`` (C,) is the factor on the channel's weights and ``reliability`` (C,) the
    correlation of pruned with dense output it rests on.  ``variance_pruned``/``variance_repaired``
    are the output variance over the dense one (1: restored), ``error_pruned``/``error_repaired``
    the squared error over the dense variance (0: identical).  ``rounded_to_zero`` of the zeros are
    weights that the mask has.
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    pruned: bool
    weights: int
    zeros_before: int
    zeros: int
    dead: int
    gamma: FloatArray
    reliability: FloatArray
    variance_pruned: float
    variance_repaired: float
    error_pruned: float
    error_repaired: float
    rounded_to_zero: int = 0

    @property
    def density(self) -> float:
        return 1 - self.zeros / self.weights

    @property
    def density_before(self) -> float:
        return 1 - self.zeros_before / self.weights


@dataclass(frozen=True)
class Rung:
    """A recipe that was tried by recipe auto.

    ``excess``: the worst output's error on held-out samples over what is good enough (1 is).
    ``accepted``: whether it passed the gates.  ``taken``: whether the result is this one.
    """

    recipe: str
    excess: float
    accepted: bool
    taken: bool
    seconds: float

    @property
    def enough(self) -> bool:
        return self.accepted and self.excess <= 1


@dataclass(frozen=True)
class Allocated:
    """A way to settle how much goes from where, and what came of it.

    ``by`` is an allocation or, of channels, what loses least: the layers or the outputs.

    ``excess`` and ``taken``: see ``Rung``.
    """

    by: str
    excess: float
    taken: bool


@dataclass(frozen=True)
class RepairResult(Displayed):
    """The repaired model and everything the report tells about the run.

    ``spared`` are the names of sites that stay dense, as a sparsity with an N:M pattern allows.
    ``cost_before`` is that of the model that was given, for inputs of the ``sizes`` it was fed.
    ``idle``: channels that ``compact`` would remove at the least.  ``kept_float32``: of a model in
    float16 the nodes that are not, and why; ``rounding``: how far its outputs are from those it had
    in float32, relative to their spread; ``tiny``: weights that became float16's smallest number.
    """

    model: onnx.ModelProto
    options: RepairOptions
    sites: tuple[SiteReport, ...]
    skipped: tuple[Skipped, ...]
    pruned_outputs: Mapping[str, OutputMatch]
    repaired_outputs: Mapping[str, OutputMatch]
    device: str
    seconds: float
    solve_images: int
    held_out_images: int
    answers: Answers | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None  # the user's, by model
    rungs: tuple[Rung, ...] = ()  # of recipe auto
    allocated: tuple[Allocated, ...] = ()  # of allocation search
    spared: tuple[str, ...] = ()
    cost_before: Cost | None = None
    sizes: Mapping[str, tuple[int, ...]] | None = None
    widths: tuple[Width, ...] = ()  # where channels go
    idle: int = 0
    integers: InIntegers | None = None
    kept_float32: tuple[Skipped, ...] = ()
    rounding: Mapping[str, float] | None = None
    tiny: int = 0

    @property
    def rounded_to_zero(self) -> int:
        """Weights that are zero because they were rounded, not because they were pruned."""
        return sum(s.rounded_to_zero for s in self.sites)

    @property
    def cost(self) -> Cost:
        """What the repaired model costs; less than before if it has become narrower."""
        return cost_of(self.model, self.sizes)

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights of the sites that were to be pruned, or are spared."""
        chosen = [s for s in self.sites if s.pruned or s.name in self.spared]
        return sum(s.zeros for s in chosen) / sum(s.weights for s in chosen)


def is_worse(
    pruned: Mapping[str, OutputMatch],
    repaired: Mapping[str, OutputMatch],
    rounding: Mapping[str, float] | None = None,
) -> str:
    """The first output on which repair did worse than plain pruning, as a phrase; or empty.

    By the error, which needs no layout; see ``larger``.  ``rounding`` is what float16 added to it.
    """
    for name, match in repaired.items():
        before, after = pruned[name].relative_error, match.relative_error
        if larger(before, after - (rounding or {}).get(name, 0.0)):
            return f"'{name}' is off by {after:.3f} of its spread, not {before:.3f}"
    return ""


def larger(before: float, after: float) -> bool:
    """Whether a repair that made the error ``before`` into that ``after`` did harm.

    Scaling restores variance, not least squares: where nothing comes behind that gains by it, the
    error grows by up to 8 % (correlation 0.5), and that is no harm.
    """
    return after > most(before)


def most(before: float) -> float:
    """The largest error that a repair of what had the error ``before`` may have; see ``larger``."""
    return _BY_DESIGN * before + _NOTHING


def closest(
    pruned: Mapping[str, OutputMatch],
    repaired: Mapping[str, OutputMatch],
    rounding: Mapping[str, float] | None = None,
) -> tuple[float | None, float | None]:
    """The error that ``is_worse`` looks at of the output that is nearest to being worse.

    And the most it may be; both ``None`` where no output can be compared.
    """
    errors = [
        (match.relative_error - (rounding or {}).get(name, 0.0), most(pruned[name].relative_error))
        for name, match in repaired.items()
    ]
    known = [pair for pair in errors if all(map(math.isfinite, pair))]
    return max(known, key=lambda pair: pair[0] - pair[1], default=(None, None))


def variance_ratio(m: PairedMoments) -> float:
    """Summed variance of the second network's channels over the dense network's."""
    return _ratio(float(m.pruned.var.sum()), float(m.dense.var.sum()))


def error_ratio(m: PairedMoments) -> float:
    """Squared error of the second network's channels over the dense network's variance."""
    shift = m.dense.mean - m.pruned.mean
    error = m.dense.var + m.pruned.var - 2 * m.covariance + shift * shift
    return _ratio(float(np.maximum(error, 0).sum()), float(m.dense.var.sum()))


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else (1.0 if a == b else float("inf"))


def site_report(
    site: Site,
    pruned_here: bool,
    correction: Correction,
    pruned: PairedMoments,
    repaired: PairedMoments,
) -> SiteReport:
    """The record of one solved site; the moments pair the dense output with the other networks'."""
    before = site.weight.value
    rounded = correction.scales is not None
    rows = correction.rows.astype(before.dtype)  # small ones may become zeros
    return SiteReport(
        name=site.name,
        node=site.node,
        op=site.op,
        shape=tuple(before.shape),
        pruned=pruned_here,
        weights=before.size,
        zeros_before=site.zeros,
        zeros=int(rows.size - np.count_nonzero(rows)),
        dead=int((~rows.any(axis=2)).sum()),
        gamma=correction.gamma,
        reliability=correction.reliability,
        variance_pruned=variance_ratio(pruned),
        variance_repaired=variance_ratio(repaired),
        error_pruned=error_ratio(pruned),
        error_repaired=error_ratio(repaired),
        rounded_to_zero=int((correction.mask & (rows == 0)).sum()) if rounded else 0,
    )

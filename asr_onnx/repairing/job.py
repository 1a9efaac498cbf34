"""One repair: solve layer after layer, then put the model together and compare it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, FloatArray, Outputs
from asr_onnx.data.batches import Batches
from asr_onnx.errors import CalibrationError
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.match import compare_outputs
from asr_onnx.evaluation.outputs import stacked
from asr_onnx.evaluation.samples import collect
from asr_onnx.execution.layer import StreamLayer
from asr_onnx.execution.lockstep import Lane
from asr_onnx.execution.plan import Stage
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph import model_file
from asr_onnx.graph.channels import find_channels
from asr_onnx.graph.cost import cost_of
from asr_onnx.graph.fold import fold
from asr_onnx.graph.narrow import narrow
from asr_onnx.graph.records import Patch, Site
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.graph.sites import Survey
from asr_onnx.maths.densities import by_error
from asr_onnx.maths.moments import PairedMoments
from asr_onnx.options import OPS, RepairOptions
from asr_onnx.pruning.choose import (
    Choice,
    choose,
    excluded,
    fixed,
    left_dense,
    masked,
    nonzero,
    prunable,
)
from asr_onnx.pruning.patterns import Pattern
from asr_onnx.pruning.sparing import energy_lost, predicted, sparing
from asr_onnx.quantizing.checks import InIntegers, check_pairs
from asr_onnx.quantizing.half import halved
from asr_onnx.quantizing.quantized import Quantized, plainly_rounded
from asr_onnx.repairing.compacting import idle_channels
from asr_onnx.repairing.norm_statistics import reestimate, require_norms
from asr_onnx.repairing.result import RepairResult, SiteReport, site_report
from asr_onnx.repairing.self_check import INTEGERS, STREAMS, require_same
from asr_onnx.repairing.weighing import Weighed, leaving
from asr_onnx.solvers import refit, scale
from asr_onnx.solvers.correction import Correction
from asr_onnx.solvers.integers import Integers


class Job:
    """One repair: its options, the masks they choose, and what has been solved so far.

    ``weighed`` is what its options need to know beforehand.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        sites: Sequence[Site],
        survey: Survey,
        options: RepairOptions,
        weighed: Weighed,
        quantized: Quantized | None = None,
    ) -> None:
        self.proto, self.options, self.skipped = proto, options, survey.skipped
        self.quantized = quantized
        self.choices: dict[str, Choice] = {}
        self.spared: tuple[str, ...] = ()
        self.narrowing, self.gone = weighed.narrowing, frozenset[int]()
        if self.narrowing:
            self.gone = leaving(weighed, options)
            self.choices |= self.narrowing.masks(self.gone)
            self.skipped += self.narrowing.skipped
            self.chosen = set(self.choices)
        else:
            # What is pruned already and becomes integers may be of any operator.
            ops = options.ops if options.chooses_mask or not quantized else OPS
            able = prunable(sites, ops, options.structure, options.include, options.exclude)
            costs = partial(_costs, able, options, weighed.errors)
            pattern, chosen = sparing(able, options.structure, options.zeros, costs)
            self.chosen = {s.name for s in chosen}
            self.spared = tuple(s.name for s in able if s.name not in self.chosen)
            if options.chooses_mask:
                self.skipped += left_dense(survey.sites, pattern, options.include)
                self.choices |= _chosen(chosen, pattern, options, weighed.errors)
        others = (s for s in sites if s.name not in self.chosen)
        self.untouched = {s.name for s in others if fixed(s) or excluded(s, options.exclude)}
        if options.bn_stats != "dense":
            require_norms(proto, options.bn_stats)
        self.patch = Patch()
        self.integers = Patch()
        self.reports: list[SiteReport] = []
        self._solved: dict[str, tuple[Correction, PairedMoments]] = {}

    def solve(self, layer: StreamLayer, first: bool) -> None:
        """Solve a layer, and take the repaired stream past it.

        With ``one_shot`` it goes on as if nothing had been repaired.
        """
        options, site = self.options, layer.site
        if (options.keep_first and first) or site.name in self.untouched:
            options = replace(options, method="none", reconstruct=False)
        correction = solve(layer, self._choice(site), options, self._integers(site))
        if correction.shift is None:
            bias = layer.bias + correction.bias_change
            repaired = layer.replace(correction.rows, bias)
        else:
            repaired = layer.rescale(correction.gamma, correction.shift, keep=options.one_shot)
        self.patch |= fold(site, layer.weight(correction.rows), correction.bias_change)
        if self.quantized and correction.scales is not None:
            self.integers |= self.quantized.stored(site, correction.rows, correction.scales)
        self._solved[site.name] = correction, repaired

    def _integers(self, site: Site) -> Integers | None:
        return self.quantized.integers(site) if self.quantized else None

    def _choice(self, site: Site) -> Choice:
        """What was chosen for a site, its own zeros otherwise; told once, for masks are large."""
        found = self.choices.pop(site.name, None)
        return nonzero(site) if found is None else found

    def check(self, lane: Lane, stage: Stage) -> None:
        """Take the merely pruned stream through a stage that is solved, and report on its sites."""
        masks = {s.name: from_rows(s, self._solved[s.name][0].mask) for s in stage.sites}
        weights = {s.name: self._plain(s, masked(s, masks[s.name])) for s in stage.sites}
        pruned = lane.run_pruned(stage, weights)
        for site in stage.sites:
            correction, repaired = self._solved.pop(site.name)
            merely, pruned_here = pruned[site.name], site.name in self.chosen
            if self.narrowing:  # what goes is no loss here: whatever reads it says what it lost
                stays = self.narrowing.stays(site, self.gone)
                merely, repaired = merely.of(stays), repaired.of(stays)
            self.reports.append(site_report(site, pruned_here, correction, merely, repaired))

    def _plain(self, site: Site, weight: AnyArray) -> AnyArray:
        """A weight that nobody repairs: where it becomes integers, each to the nearest."""
        integers = self._integers(site)
        return plainly_rounded(site, weight, integers) if integers else weight

    def result(
        self,
        original: onnx.ModelProto,
        calibration: Batches,
        device: Device,
        started: float,
        figures: Figures,
        dense: Sequence[Outputs],
        streamed: Sequence[Outputs],
        pruned: Sequence[Outputs],
    ) -> RepairResult:
        """The repaired model, and how it matches the dense one on each batch checked on."""
        options = self.options
        model = model_file.apply(self.proto, self.patch)
        if options.bn_stats != "dense":
            model = reestimate(model, calibration, options, device)
        batches = calibration.checked
        if options.bn_stats != "dense" or options.one_shot:
            streamed = run_checked(model, calibration, device)
        else:
            last = Runner(model, device, once=True).run(calibration.feeds(batches[-1]))
            require_same(streamed[-1], last, slack=INTEGERS if self.quantized else STREAMS)
        if self.narrowing and self.gone:
            model = self._narrower(model, calibration, device, streamed[-1])
        if self.quantized:
            model = self.quantized.with_integers(self.patch, self.integers)
            check_pairs(model, self.quantized)
            last = Runner(model, device, once=True).run(calibration.feeds(batches[-1]))
            require_same(streamed[-1], last, "that with float weights", INTEGERS)
        self.patch = Patch()  # a copy of the weights is memory
        fed_last = calibration.feeds(batches[-1])
        idle = 0 if self.quantized else idle_channels(model, fed_last, device)
        half, rounding, exact = None, None, streamed
        if options.halves:
            half = halved(model, calibration, device, streamed, options.float32_io, options.exclude)
            model, streamed = half.model, half.outputs
        reference, repaired, merely = (stacked(o) for o in (dense, streamed, pruned))
        sizes, axes = [len(b.samples) for b in batches], figures.axes(model)
        matches = compare_outputs(dense, streamed, sizes, axes)
        if half:
            off = compare_outputs(exact, streamed, sizes, axes)
            rounding = {name: match.relative_error for name, match in off.items()}
        for name, values in reference.items():
            _require_finite(name, values, matches[name].relative_error)
        fed = {n: a.shape for n, a in fed_last.items()}
        integers = None
        if self.quantized:
            fused = compare_outputs(dense, run_checked(model, calibration, device), sizes, axes)
            integers = InIntegers(
                engine=options.engine,
                products=len(self.quantized.products),
                repaired=len(self.quantized.weights),
                activations=len(self.quantized.activations),
                fused=fused,
            )
        metric, metrics = figures.metric, None
        if metric:
            both = {"pruned": pruned, "repaired": streamed}
            metrics = {name: metric(dense, outputs, sizes) for name, outputs in both.items()}
        return RepairResult(
            model=model,
            options=options,
            sites=tuple(self.reports),
            skipped=self.skipped,
            spared=self.spared,
            pruned_outputs=compare_outputs(dense, pruned, sizes, axes),
            repaired_outputs=matches,
            device=str(device),
            seconds=time.perf_counter() - started,
            solve_images=calibration.num_solve,
            held_out_images=calibration.num_held_out,
            answers=collect(calibration, reference, merely, repaired),
            metrics=metrics,
            cost_before=cost_of(original, fed),
            sizes=fed,
            widths=self.narrowing.widths(self.gone) if self.narrowing else (),
            idle=idle,
            integers=integers,
            kept_float32=half.kept if half else (),
            rounding=rounding,
            tiny=half.tiny if half else 0,
        )

    def _narrower(
        self, model: onnx.ModelProto, calibration: Batches, device: Device, expected: Outputs
    ) -> onnx.ModelProto:
        """The repaired model without the channels that nothing reads any more.

        It must do what the model with zeros in their place did.
        """
        assert self.narrowing
        channels = find_channels(model, self.narrowing.channels.shapes)  # there are new biases
        assert channels.groups == self.narrowing.channels.groups, "no weight changes its shape"
        narrower = narrow(model, channels, self.gone)
        feeds = calibration.feeds(calibration.checked[-1])
        require_same(expected, Runner(narrower, device, once=True).run(feeds))
        return narrower


def _costs(
    sites: Sequence[Site], options: RepairOptions, errors: Mapping[str, FloatArray] | None
) -> Mapping[str, float]:
    """What the pattern takes from each site, by what the masks and densities go by."""
    if options.allocates_by_error:
        assert errors, "weighed, as the options ask for it"
        return predicted(errors, options.structure)
    score = options.choice.score or np.abs
    return energy_lost(sites, options.structure, score, options.row_scale)


def _chosen(
    sites: Sequence[Site],
    pattern: Pattern,
    options: RepairOptions,
    errors: Mapping[str, FloatArray] | None,
) -> Mapping[str, Choice]:
    """Masks of single weights, or what finds them."""
    density = by_error(errors) if errors and options.allocates_by_error else options.allocation
    return choose(sites, options.choice, pattern, options.zeros, density, options.row_scale)


def solve(
    layer: StreamLayer,
    choice: Choice,
    options: RepairOptions,
    integers: Integers | None = None,
) -> Correction:
    """By statistics of the output alone where that is enough, else by second moments."""
    if not isinstance(choice, np.ndarray):
        return refit.solve(layer, choice, options, integers)
    mask = np.asarray(to_rows(layer.site, choice), bool)
    if options.reconstruct or integers:
        return refit.solve(layer, mask, options, integers)
    return scale.solve(layer, mask, options)


def run_checked(model: onnx.ModelProto, calibration: Batches, device: Device) -> list[Outputs]:
    """A model's outputs of each batch results are checked on, as those who deploy it have them."""
    runner = Runner(model, device, fused=True)
    return [runner.run(calibration.feeds(b)) for b in calibration.checked]


def _require_finite(name: str, dense: AnyArray, error: float) -> None:
    """Refuse NaN in an output of the dense model, and infinity where it leaves nothing to compare.

    Infinity that stays where it is, as in a masked class, does no harm.
    """
    if dense.dtype.kind != "f":
        return
    spoiled = np.isnan(dense) | (np.isinf(dense) & (error == np.inf))
    if spoiled.any():
        raise CalibrationError(
            f"output '{name}' of the dense model is NaN or infinite on the calibration data, at "
            f"{spoiled.sum():,} of {spoiled.size:,} places: check the preprocessing, or the model"
        )

"""One repair on its way: solve site after site, then put the model together and judge it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from asr_onnx.data.batches import Calibration
from asr_onnx.errors import ModelError
from asr_onnx.evaluation import samples as answers
from asr_onnx.evaluation.outputs import Outputs, compare_outputs, stacked
from asr_onnx.execution.lockstep import Walk
from asr_onnx.execution.plan import Stage, Step
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph import model_file as models
from asr_onnx.graph.fold import fold
from asr_onnx.graph.records import Patch, Site
from asr_onnx.graph.sites import Survey
from asr_onnx.maths.moments import PairedMoments, rescaled
from asr_onnx.options import RepairOptions
from asr_onnx.pruning.choose import Choice, choose, left_dense, prunable
from asr_onnx.repairing.norm_statistics import reestimate, require_norms
from asr_onnx.repairing.result import RepairResult, SiteReport, site_report
from asr_onnx.solvers.refit import solve_refit
from asr_onnx.solvers.scale import Solution, bias_of, masked, solve_scale

_SELF_CHECK = {2: 5e-2, 4: 1e-2, 8: 1e-6}  # itemsize of the outputs -> relative error allowed


class Task:
    """One repair: its options, the masks they choose, and what has been solved so far."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        sites: Sequence[Site],
        survey: Survey,
        options: RepairOptions,
    ) -> None:
        self.proto, self.options, self.skipped = proto, options, survey.skipped
        self.choices = choose(sites, options)
        self.chosen = {s.name for s in prunable(sites, options)}
        self.skipped += left_dense(survey.sites, options)
        if options.bn_stats != "dense":
            require_norms(proto, options.bn_stats)
        self.patch = Patch()
        self.reports: list[SiteReport] = []
        self._solved: dict[str, tuple[Solution, PairedMoments]] = {}

    def solve(self, walk: Walk, step: Step, site: Site, first: bool) -> None:
        """Solve the step's site, and take the repaired stream past it.

        With ``one_shot`` it goes on as if nothing had been repaired.
        """
        options = self.options
        if options.keep_first and first:
            options = replace(options, method="none", reconstruct=False)
        solution = solve(walk, step, site, self.choices.pop(site.name), options)
        if solution.shift is None or solution.checked is None:
            bias = bias_of(site) + solution.bias_change
            parts = walk.repaired.execute(site, solution.weight, bias, use=walk.against_dense(site))
            repaired = walk.checked(parts)
        else:
            repaired = rescaled(solution.checked, solution.gamma, solution.shift)
            if not options.one_shot:
                walk.repaired.rescale(site, solution.gamma, solution.shift)
        walk.repaired.finish(step)
        self.patch |= fold(site, solution.weight, solution.bias_change)
        self._solved[site.name] = solution, repaired

    def check(self, walk: Walk, stage: Stage) -> None:
        """Take the merely pruned stream through a stage that is solved, and report on its sites."""
        weights = {s.name: masked(s, self._solved[s.name][0].mask) for s in stage.sites}
        pruned = walk.run_pruned(stage, weights)
        for site in stage.sites:
            solution, repaired = self._solved.pop(site.name)
            self.reports.append(
                site_report(
                    site,
                    site.name in self.chosen,
                    solution.weight,
                    solution.gamma,
                    solution.reliability,
                    pruned[site.name],
                    repaired,
                )
            )

    def result(
        self,
        calibration: Calibration,
        device: Device,
        started: float,
        dense: Sequence[Outputs],
        walked: Sequence[Outputs],
        pruned: Sequence[Outputs],
    ) -> RepairResult:
        """The repaired model, and how it matches the dense one on each batch checked on."""
        options = self.options
        model = models.apply(self.proto, self.patch)
        self.patch = Patch()  # a copy of the weights is memory
        if options.bn_stats != "dense":
            model = reestimate(model, calibration, options, device)
        batches = calibration.checked
        if options.bn_stats != "dense" or options.one_shot:
            walked = run_checked(model, calibration, device)
        else:
            last = Runner(model, device, once=True).run(calibration.feeds(batches[-1]))
            _self_check(walked[-1], last)
        reference, repaired, merely = (stacked(o) for o in (dense, walked, pruned))
        return RepairResult(
            model=model,
            options=options,
            sites=tuple(self.reports),
            skipped=self.skipped,
            pruned_outputs=compare_outputs(reference, merely),
            repaired_outputs=compare_outputs(reference, repaired),
            device=str(device),
            seconds=time.perf_counter() - started,
            solve_images=calibration.num_solve,
            held_out_images=calibration.num_held_out,
            answers=answers.collect(calibration, reference, merely, repaired),
        )


def solve(walk: Walk, step: Step, site: Site, choice: Choice, options: RepairOptions) -> Solution:
    """By statistics of the output alone where that is enough, else by second moments."""
    if isinstance(choice, np.ndarray) and not options.reconstruct:
        return solve_scale(walk, step, site, choice, options)
    return solve_refit(walk, step, site, choice, options)


def run_checked(model: onnx.ModelProto, calibration: Calibration, device: Device) -> list[Outputs]:
    """A model's outputs of each batch results are checked on."""
    runner = Runner(model, device)
    return [runner.run(calibration.feeds(b)) for b in calibration.checked]


def _self_check(walked: Outputs, final: Outputs) -> None:
    """The model as written must do what the walk computed; a difference is this tool's fault."""
    for name, match in compare_outputs(walked, final).items():
        kind = np.asarray(final[name]).dtype
        allowed = _SELF_CHECK.get(kind.itemsize, 0.0)
        if kind.kind == "f" and match.relative_error > allowed:
            raise ModelError(
                f"output '{name}' of the repaired model is off by {match.relative_error:.1g} from "
                "the walk that made it: nothing is written; please report this model"
            )

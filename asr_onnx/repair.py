"""The method on one screen: walk the sites in order, measure, solve, fold, go on repaired.

Dense-referenced and sequential: each site sees the input that the repaired layers before it
produce, and is corrected towards the dense network's output on the same images.  A converged
re-estimation of BatchNormalization would cancel any scale put in front of it; this does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx

from asr_onnx import answers
from asr_onnx import model as models
from asr_onnx.bnstats import reestimate, require_norms
from asr_onnx.calibration import Calibration, as_calibration, model_inputs
from asr_onnx.errors import ModelError
from asr_onnx.evaluate import Outputs, compare_outputs, stack
from asr_onnx.fold import fold
from asr_onnx.moments import PairedAccumulator, rescaled
from asr_onnx.options import OPS, RepairOptions
from asr_onnx.pairing import rename_like
from asr_onnx.pruning import Choice, choose, left_dense, prunable
from asr_onnx.refit import solve_refit
from asr_onnx.result import RepairResult, SiteReport, site_report
from asr_onnx.segments import Step
from asr_onnx.sessions import Device, Runner, choose_device
from asr_onnx.sites import find_sites, with_heads
from asr_onnx.solve import Solution, bias_of, solve_scale
from asr_onnx.store import TensorStore, default_limit
from asr_onnx.types import Patch, Site
from asr_onnx.walk import Walk

Progress = Callable[[int, int, str], None]

_SELF_CHECK = {2: 5e-2, 4: 1e-2, 8: 1e-6}  # itemsize of the outputs -> relative error allowed


def repair(
    proto: onnx.ModelProto,
    data: object,
    options: RepairOptions | None = None,
    *,
    dense: onnx.ModelProto | None = None,
    progress: Progress | None = None,
) -> RepairResult:
    """Prune ``proto`` and repair it; or repair ``proto``, pruned elsewhere, after ``dense``.

    ``data`` is a ``Calibration``, or whatever ``as_calibration`` takes: a path, an array with
    samples first, a dict of arrays by input name, an iterable of such dicts.
    With ``dense`` the zeros of ``proto`` are the mask and ``options.sparsity`` is not used.
    Neither model is changed.  ``progress`` is called with (done, total, what) before each site.

    Raises ``ModelError``, ``CalibrationError``, ``ProviderError`` or ``UsageError``, each with one
    line that names the cause.
    """
    options = options or RepairOptions()
    started = time.perf_counter()
    models.check_in_memory(proto)
    calibration = as_calibration(data, model_inputs(proto))
    survey = find_sites(proto, options.ops)
    sites = with_heads(proto, survey.sites) if options.reconstruct else survey.sites
    if dense is None:
        reference, choices = proto, choose(sites, options)
    else:
        models.check_in_memory(dense)
        reference = rename_like(dense, proto)
        choices = {s.name: s.weight.value != 0 for s in sites}
    chosen = {s.name for s in (prunable(sites, options) if dense is None else survey.sites)}
    dense_sites = {s.output: s for s in (find_sites(reference, OPS).sites if dense else sites)}
    if options.bn_stats != "dense":
        require_norms(proto, options.bn_stats)
    device = choose_device(options.providers)
    limit = default_limit() if options.memory_limit is None else options.memory_limit
    patch, reports = Patch(), []
    with TensorStore(limit) as store:
        walk = Walk(reference, proto, sites, calibration, device, store)
        for number, step in enumerate(walk.steps):
            if (site := step.site) is None:
                break
            if progress:
                progress(number, len(sites), site.label)
            walk.run_dense(step, dense_sites[site.output])
            kept = options.keep_first and number == 0
            how = replace(options, method="none", reconstruct=False) if kept else options
            solution = solve(walk, step, site, choices[site.name], how)
            patch |= fold(site, solution.weight, solution.bias_change)
            reports.append(
                _advance(walk, step, site, solution, site.name in chosen, options.one_shot)
            )
        outputs, walked, pruned = walk.outputs()
    repaired = models.apply(proto, patch)
    if options.bn_stats != "dense":
        repaired = reestimate(repaired, calibration, options, device)
    final = run_checked(repaired, calibration, device)
    if options.bn_stats == "dense" and not options.one_shot:
        _self_check(walked, final)
    return RepairResult(
        model=repaired,
        options=options,
        sites=tuple(reports),
        skipped=survey.skipped + (left_dense(survey.sites, options) if dense is None else ()),
        pruned_outputs=compare_outputs(outputs, pruned),
        repaired_outputs=compare_outputs(outputs, final),
        device=str(device),
        seconds=time.perf_counter() - started,
        solve_images=calibration.num_solve,
        held_out_images=calibration.num_held_out,
        answers=answers.collect(calibration, outputs, pruned, final),
    )


def repair_all(
    proto: onnx.ModelProto,
    data: object,
    cells: Sequence[RepairOptions],
    *,
    progress: Progress | None = None,
) -> tuple[RepairResult, ...]:
    """``repair`` under each of several options, on the same data; results in their order."""
    calibration = as_calibration(data, model_inputs(proto))
    return tuple(repair(proto, calibration, options, progress=progress) for options in cells)


def solve(walk: Walk, step: Step, site: Site, choice: Choice, options: RepairOptions) -> Solution:
    """By statistics of the output alone where that is enough, else by second moments."""
    if isinstance(choice, np.ndarray) and not options.reconstruct:
        return solve_scale(walk, step, site, choice, options)
    return solve_refit(walk, step, site, choice, options)


def _advance(
    walk: Walk, step: Step, site: Site, solution: Solution, chosen: bool, one_shot: bool
) -> SiteReport:
    """Run the solved site in the repaired stream and the masked one in the pruned; compare.

    With ``one_shot`` the repaired stream goes on as if nothing had been repaired.
    """
    pruned = PairedAccumulator(site.axis)
    if solution.shift is None or solution.checked is None:
        sums = PairedAccumulator(site.axis)
        bias = bias_of(site) + solution.bias_change
        for batch, output in walk.repaired.execute(site, solution.weight, bias):
            if batch in walk.checked_on:
                sums.update(walk.dense[batch, site.output], output)
        repaired = sums.result()
    else:
        repaired = rescaled(solution.checked, solution.gamma, solution.shift)
        if not one_shot:
            walk.repaired.rescale(site, solution.gamma, solution.shift)
    for batch, output in walk.run_pruned(step, site, solution.pruned):
        pruned.update(walk.dense[batch, site.output], output)
    walk.finish(step)
    return site_report(
        site,
        chosen,
        solution.weight,
        solution.gamma,
        solution.reliability,
        pruned.result(),
        repaired,
    )


def run_checked(proto: onnx.ModelProto, calibration: Calibration, device: Device) -> Outputs:
    """Outputs of a model on the held-out images, or on all when none is held out."""
    batches = [b for b in calibration.batches if b.held_out] or calibration.batches
    runner = Runner(proto, device)
    results = [runner.run(calibration.feeds(b)) for b in batches]
    return {name: stack([r[name] for r in results]) for name in runner.outputs}


def _self_check(walked: Outputs, final: Outputs) -> None:
    """The model as written must do what the walk computed; a difference is this tool's fault."""
    for name, match in compare_outputs(walked, final).items():
        allowed = _SELF_CHECK.get(np.asarray(final[name]).dtype.itemsize, 0.0)
        if final[name].dtype.kind == "f" and match.relative_error > allowed:
            raise ModelError(
                f"output '{name}' of the repaired model is off by {match.relative_error:.1g} from "
                "the walk that made it: nothing is written; please report this model"
            )

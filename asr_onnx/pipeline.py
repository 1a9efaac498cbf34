"""The method on one screen: walk the sites in order, measure, solve, fold, go on repaired.

Dense-referenced and sequential: each site sees the input that the repaired layers before it
produce, and is corrected towards the dense network's output on the same images.  A converged
re-estimation of BatchNormalization would cancel any scale put in front of it; this does not.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import onnx
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import Outputs
from asr_onnx.data.batches import Batches, as_batches
from asr_onnx.data.enough import FEW
from asr_onnx.data.noise import noise
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.evaluation.figures import Figures
from asr_onnx.execution.lockstep import Lockstep
from asr_onnx.execution.session import Device, choose_device
from asr_onnx.execution.tensor_store import TensorStore, default_limit
from asr_onnx.graph.input_shapes import with_shapes
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.model_file import apply, check_readable
from asr_onnx.graph.narrow import narrow
from asr_onnx.graph.pairing import rename_like
from asr_onnx.graph.sites import find_sites, survey_of
from asr_onnx.machine import Execution
from asr_onnx.options import OPS, PruneOptions, RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.pruning.channels import Narrowing
from asr_onnx.pruning.choose import mask_patch, masks_by_score, prunable
from asr_onnx.pruning.criteria import CRITERIA
from asr_onnx.pruning.eligibility import EngineOptions
from asr_onnx.pruning.inspection import Inspection, look_at
from asr_onnx.pruning.patterns import Channel, Pattern
from asr_onnx.pruning.sparing import energy_lost, sparing
from asr_onnx.quantizing.half import require_float32
from asr_onnx.quantizing.quantized import Quantized
from asr_onnx.recipes import AUTO
from asr_onnx.repairing.allocation_search import search
from asr_onnx.repairing.compacting import Compacted, compacted
from asr_onnx.repairing.job import Job
from asr_onnx.repairing.ladder import Accept, climb
from asr_onnx.repairing.preparing import in_integers, survey
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.weighing import Weighed, weighed_for


def inspect(
    proto: onnx.ModelProto,
    ops: Sequence[str] = ("Conv",),
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    pattern: Pattern | Channel | str | None = None,
    engine: str | None = None,
) -> Inspection:
    """Look at a model without running it; ``input_shapes`` settle sizes that it leaves open.

    With the pattern channel it tells which channels stand or fall together, with an ``engine``
    which layers its sparse kernels can take.  Models that are quantised already are read, too.
    Raises ``ModelError`` when nothing can be pruned, ``UsageError`` for shapes that do not fit.
    """
    check_readable(proto)
    o, sizes = PruneOptions(ops=tuple(ops), pattern=pattern), None
    engine, found = EngineOptions(engine).engine, survey_of(proto, o.ops)
    if input_shapes:
        sizes = {i.name: i.shape for i in with_shapes(model_inputs(proto), input_shapes)}
    if not o.narrows:
        return look_at(found, proto, sizes, o.structure, ops=o.ops, engine=engine)
    repaired = survey(proto, o)[1]
    return look_at(found, proto, sizes, repaired=repaired, ops=o.ops, engine=engine)


def prune(proto: onnx.ModelProto, options: PruneOptions | None = None) -> onnx.ModelProto:
    """A copy of the model with the smallest weights zeroed and nothing else changed.

    With the pattern channel it is without the channels whose weights are smallest, with an N:M
    pattern and a sparsity the layers stay dense that lose most of their weights' squares by it.

    Raises ``ModelError`` when there is nothing to prune, ``UsageError`` for bad options.
    """
    check_readable(proto)
    o = options or PruneOptions()
    criterion = o.choice if isinstance(o, RepairOptions) else CRITERIA["magnitude"]
    if criterion.score is None:
        raise UsageError("a criterion that searches in the data cannot prune without: use repair")
    if o.narrows:
        narrowing = Narrowing.of(proto, survey(proto, o)[1], {}, o.ops, o.include, o.exclude)
        removals = narrowing.by_score(criterion.score, o.row_scale)
        gone = narrowing.gone(removals, o.macs_left, o.zeros, o.channel_multiple)
        return narrow(proto, narrowing.channels, gone)
    able = prunable(find_sites(proto, o.ops).sites, o.ops, o.structure, o.include, o.exclude)
    costs = partial(energy_lost, able, o.structure, criterion.score, o.row_scale)
    pattern, sites = sparing(able, o.structure, o.zeros, costs)
    masks = masks_by_score(sites, criterion.score, pattern, o.zeros, o.row_scale)
    return apply(proto, mask_patch(sites, masks))


def compact(
    proto: onnx.ModelProto,
    data: object = None,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    execution: Execution | None = None,
) -> Compacted:
    """A narrower model with the same outputs: what contributes nothing is removed.

    That is channels no weight reads, and those no weight makes, whose constants go into the biases
    of what reads them.  A batch of ``data``, as for ``repair``, tells the constants and checks the
    result; without data it is noise, of sizes that ``input_shapes`` settle where they are open.

    Raises ``ModelError`` for a model that has no product with a constant weight or cannot be run,
    ``UsageError`` for open sizes.
    """
    check_readable(proto)
    inputs = with_shapes(model_inputs(proto), input_shapes or {})
    device = choose_device((execution or Execution()).providers)
    if data is None:
        return compacted(proto, noise(inputs), device, of="noise")
    batches = as_batches(data, inputs, holdout=0.0)
    return compacted(proto, batches.feeds(batches.batches[0]), device)


def repair(
    proto: onnx.ModelProto,
    data: object,
    options: RepairOptions | None = None,
    *,
    dense: onnx.ModelProto | None = None,
    figures: Figures | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
    accept: Accept | None = None,
    weighed: Weighed | None = None,
) -> RepairResult:
    """Prune ``proto`` and repair it; or repair ``proto``, pruned elsewhere, after ``dense``.

    ``data`` is a ``Batches``, or whatever ``as_batches`` takes: a path, an array with samples
    first, a dict of arrays by input name, an iterable of such dicts.
    With ``dense`` the zeros of ``proto`` are the mask; options that choose one are refused.
    ``figures`` declare class axes, and a metric.
    Neither model is changed.  ``progress`` is called with (done, total, what) before each site.
    ``accept`` is asked of each rung of recipe auto besides what ``ladder.climb`` asks.
    ``weighed`` is what ``weigh`` says, where that is known already.

    Raises ``ModelError``, ``CalibrationError``, ``ProviderError`` or ``UsageError``, each with one
    line that names the cause.
    """
    options = options or RepairOptions()
    if not isinstance(options, RepairOptions):
        raise UsageError(f"options are a {type(options).__name__}: give RepairOptions or a recipe")
    options = options if dense is None else options.for_given_mask()
    climbs = options.recipe == AUTO
    figures = _ready(proto, [options], figures)
    batches, where = as_batches(data, model_inputs(proto)), execution or Execution()

    def one(rung: RepairOptions) -> RepairResult:
        def report(done: int, total: int, what: str) -> None:
            if progress:
                progress(done, total, f"{rung.recipe}: {what}" if climbs else what)

        def run(cell: RepairOptions, known: Weighed | None) -> RepairResult:
            cells = [cell]
            return _repair(proto, batches, cells, dense, figures, where, report, known, integers)[0]

        if not rung.searches_allocation:
            return run(rung, weighed)
        started = time.perf_counter()
        known = weighed
        if not (known or integers):  # what rounding costs is known where the integers are
            known = weigh(proto, batches, rung, execution=where, progress=report)
        result = search(rung, known, run)
        return replace(result, seconds=time.perf_counter() - started)

    integers = None
    if options.quantizes:
        reference = _reference(proto, dense)
        device = choose_device(where.providers)
        integers = in_integers(proto, reference, batches, options, device, progress)
    few = batches.num_solve + batches.num_held_out < FEW
    return climb(options.rungs, one, accept, thorough=few) if climbs else one(options)


def quantize(
    proto: onnx.ModelProto,
    data: object,
    options: RepairOptions | None = None,
    *,
    dense: onnx.ModelProto | None = None,
    figures: Figures | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
    accept: Accept | None = None,
) -> RepairResult:
    """``proto`` in int8, repaired to do what ``dense``, or itself, does in float32.

    Zeros stay zeros.  All else is as for ``repair``; ``options`` say nothing of what to prune.
    """
    return repair(
        proto,
        data,
        (options or RepairOptions()).in_int8(),
        dense=proto if dense is None else dense,
        figures=figures,
        execution=execution,
        progress=progress,
        accept=accept,
    )


def repair_all(
    proto: onnx.ModelProto,
    data: object,
    cells: Sequence[RepairOptions],
    *,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> tuple[RepairResult, ...]:
    """``repair`` under each of several options, on the same data; results in their order.

    Repairs of the same operators share one pass of the dense network; the live tensors of all of
    them are in memory together.
    """
    batches = as_batches(data, model_inputs(proto))
    execution = execution or Execution()
    found: dict[int, RepairResult] = {}
    together: dict[Hashable, list[int]] = {}
    weighed: dict[Hashable, Weighed] = {}
    for number, o in enumerate(cells):
        if o.recipe == AUTO or o.quantizes or o.searches_allocation:
            known = None
            if o.searches_allocation and not o.quantizes:
                key = (o.ops, o.include, o.exclude, o.narrows)
                known = weighed.get(key) or weigh(
                    proto, batches, o, execution=execution, progress=progress
                )
                weighed[key] = known
            found[number] = repair(
                proto, batches, o, execution=execution, progress=progress, weighed=known
            )
            continue
        apart = (o.include, o.exclude) if o.narrows else None
        together.setdefault((o.ops, o.reconstruct, o.narrows, apart), []).append(number)
    for numbers in together.values():
        chosen = [cells[n] for n in numbers]
        results = _repair(proto, batches, chosen, None, None, execution, progress)
        found |= zip(numbers, results, strict=True)
    return tuple(found[n] for n in range(len(cells)))


def _repair(
    proto: onnx.ModelProto,
    data: object,
    cells: Sequence[RepairOptions],
    dense: onnx.ModelProto | None,
    figures: Figures | None,
    execution: Execution,
    progress: Progress | None,
    weighed: Weighed | None = None,
    integers: Quantized | None = None,
) -> list[RepairResult]:
    """Repairs that share their sites, side by side; with ``integers`` of the network in these."""
    started = time.perf_counter()
    if dense is None and not all(o.chooses_mask for o in cells):
        raise UsageError("criterion 'given' is for a model that is pruned already: give dense, too")
    figures = _ready(proto, cells, figures)
    batches = as_batches(data, model_inputs(proto))
    device = choose_device(execution.providers)
    limit = default_limit() if execution.memory_limit is None else execution.memory_limit
    if integers:
        model, reference = integers.walked, integers.dense
    else:
        model, reference = proto, _reference(proto, dense)
    if dense is not None:
        _check_pruned(model, reference)
    with threadpool_limits(1, user_api="blas"):
        if weighed is None:
            with TensorStore(limit) as store:
                weighed = weighed_for(model, reference, batches, device, store, cells, progress)
        with TensorStore(limit) as store:
            jobs, outputs = _solve(
                model, reference, batches, device, store, cells, weighed, integers, progress
            )
    return [
        job.result(proto, batches, device, started, figures, *found)
        for job, found in zip(jobs, outputs, strict=True)
    ]


def _ready(
    proto: onnx.ModelProto, cells: Sequence[RepairOptions], figures: Figures | None
) -> Figures:
    """The figures to take; refuses a model that the options are not for, before the work."""
    check_readable(proto)
    if any(o.halves for o in cells):
        require_float32(proto)
    figures = figures or Figures()
    figures.axes(proto)
    return figures


def _reference(proto: onnx.ModelProto, dense: onnx.ModelProto | None) -> onnx.ModelProto:
    """The dense network, with the names of ``proto``'s tensors."""
    if dense is None:
        return proto
    check_readable(dense)
    return rename_like(dense, proto)


def _check_pruned(model: onnx.ModelProto, dense: onnx.ModelProto) -> None:
    """Raise ``ModelError`` when the model given as pruned has fewer zeros than the dense one."""
    theirs = {s.output: s for s in find_sites(dense, OPS).sites}
    sites = find_sites(model, OPS).sites
    zeros = sum(s.zeros for s in sites), sum(theirs[s.output].zeros for s in sites)
    if zeros[0] < zeros[1]:
        raise ModelError(
            f"the model to be repaired has {zeros[0]:,} zeros, the dense one {zeros[1]:,}: are "
            "they given the wrong way round?"
        )


def weigh(
    proto: onnx.ModelProto,
    data: object,
    options: RepairOptions,
    *,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Weighed:
    """What a repair needs to know beforehand, from a pass of the dense network where it needs one.

    It is the same however much goes; ``options`` are of one recipe, and not auto, and with an N:M
    pattern of some sparsity.
    """
    batches, execution = as_batches(data, model_inputs(proto)), execution or Execution()
    device = choose_device(execution.providers)
    limit = default_limit() if execution.memory_limit is None else execution.memory_limit
    with threadpool_limits(1, user_api="blas"), TensorStore(limit) as store:
        return weighed_for(proto, proto, batches, device, store, [options], progress)


def _solve(
    proto: onnx.ModelProto,
    reference: onnx.ModelProto,
    batches: Batches,
    device: Device,
    store: TensorStore,
    cells: Sequence[RepairOptions],
    weighed: Weighed,
    integers: Quantized | None,
    progress: Progress | None,
) -> tuple[list[Job], list[tuple[list[Outputs], ...]]]:
    """Solve every site; the solved jobs, and dense, repaired and pruned outputs for each."""
    found_in, sites = survey(proto, cells[0])
    found = sites if reference is proto else find_sites(reference, OPS).sites
    jobs = [Job(proto, sites, found_in, options, weighed, integers) for options in cells]
    lockstep = Lockstep(
        reference,
        proto,
        sites,
        {s.output: s for s in found},
        batches,
        device,
        store,
        repairs=len(jobs),
        shortcuts=cells[0].reconstruct,
    )
    pairs = list(zip(jobs, lockstep.lanes, strict=True))
    done = 0
    for stage in lockstep.stages:
        lockstep.run(stage)
        for step in stage.steps:
            if progress:
                progress(done, len(sites), step.sites[0].label)
            for job, lane in pairs:
                job.solve(lane.layer(step), first=done == 0)
            done += 1
        for job, lane in pairs:
            job.check(lane, stage)
        lockstep.finish(stage)
    expected = lockstep.outputs()
    return jobs, [(expected, *lane.outputs()) for lane in lockstep.lanes]

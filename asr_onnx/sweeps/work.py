"""The work of a sweep, in whatever process it is done: models in, small records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import onnx

from asr_onnx.data.batches import Batch
from asr_onnx.errors import AsrError, ModelError
from asr_onnx.evaluation.gates import worst_agreement, worst_cosine
from asr_onnx.evaluation.latency import Latency, measure
from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.execution.session import Runner
from asr_onnx.graph.inputs import fixed_batch, model_inputs
from asr_onnx.maths.intervals import Accuracy, wilson
from asr_onnx.options import PruneOptions, RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.pipeline import prune, repair_all
from asr_onnx.provenance import plain
from asr_onnx.repairing.job import run_checked
from asr_onnx.repairing.result import RepairResult, is_worse
from asr_onnx.reports.costs import over
from asr_onnx.reports.sweep_chart import is_narrower
from asr_onnx.sweeps.source import Opened, Source, compare, digest, open_source

Record = dict[str, Any]

_PLACE = ("recipe", "sparsity", "pattern", "macs")  # options that tell cells apart, if there are


@dataclass(frozen=True)
class Task:
    """One model to be measured: the dense one, a pruned one, or (``cell``) a repaired one.

    ``key`` names the result; the dense and the pruned models are the same for all recipes, and
    their options differ in the amount alone.
    """

    key: str
    kind: Literal["dense", "pruned", "cell"]
    options: RepairOptions

    @property
    def label(self) -> str:
        """What to call the model."""
        if self.kind == "dense":
            return "dense"
        return (
            f"{'pruned' if self.kind == 'pruned' else self.options.recipe} at {self.options.amount}"
        )


@dataclass(frozen=True)
class Group:
    """Tasks done together: either cells, all in one walk, or models that need no repair.

    ``identity`` is the digest of what ``source`` was when the sweep began.
    """

    source: Source
    identity: str
    tasks: tuple[Task, ...]

    @property
    def label(self) -> str:
        return ", ".join(t.label for t in self.tasks)


@dataclass(frozen=True)
class Done:
    """What came of a task: a ``record``, or why there is none."""

    task: Task
    record: Record | None
    failed: str = ""


def prune_options(options: RepairOptions) -> PruneOptions:
    """The options without those of the repair."""
    return PruneOptions(**{f.name: getattr(options, f.name) for f in fields(PruneOptions)})


def place(options: RepairOptions) -> Record:
    """What tells a cell of one sweep from the others, as sweep.json has it."""
    told = options.to_dict()
    return {n: told[n] for n in _PLACE if n in told}


def do_anywhere(job: Group) -> list[Done]:
    """``do`` in a process that has not opened the source, or not for this sweep.

    Raises ``AsrError`` when model, data or device are not those the sweep was begun with.
    """
    opened = _kept(job.source)
    if digest(opened.identity) != job.identity:
        _kept.cache_clear()  # of an earlier sweep, since when files have changed
        opened = _kept(job.source)
    if digest(opened.identity) != job.identity:
        raise AsrError(
            f"model, data, device or installed versions differ between the processes of the sweep "
            f"of '{job.source.model}': give all of them the same files, and --providers by name"
        )
    return do(job, opened)


@lru_cache(maxsize=1)
def _kept(source: Source) -> Opened:
    return open_source(source)


def do(job: Group, opened: Opened, progress: Progress | None = None) -> list[Done]:
    """Measure the job's models; a model that fails leaves the others alone.

    ``progress`` is called with (done, total, what) as the steps of the work go by.
    """
    work = _repaired if job.tasks[0].kind == "cell" else _given
    return _each(work, job.tasks, opened, progress)


_Work = Callable[[Sequence[Task], Opened, "Progress | None"], list[Record]]


def _each(
    work: _Work, tasks: Sequence[Task], opened: Opened, progress: Progress | None
) -> list[Done]:
    """All tasks together; where that fails one by one, to tell which is to blame."""
    try:
        records = work(tasks, opened, progress)
    except AsrError as error:
        if len(tasks) == 1:
            return [Done(tasks[0], None, " ".join(str(error).split()))]
        return [done for task in tasks for done in _each(work, [task], opened, progress)]
    return [Done(task, record) for task, record in zip(tasks, records, strict=True)]


def _repaired(tasks: Sequence[Task], opened: Opened, progress: Progress | None) -> list[Record]:
    options = [t.options for t in tasks]
    results = repair_all(
        opened.proto,
        opened.batches,
        options,
        execution=opened.source.execution,
        progress=progress,
    )
    models = {t.label: r.model for t, r in zip(tasks, results, strict=True)}
    top1 = opened.labelled.top1(models, progress) if opened.labelled else {}
    costs = [_cost(r) for r in results]
    narrower = [n for n, found in enumerate(costs) if is_narrower(found)]
    times = latencies(opened, [results[n].model for n in narrower]) if narrower else []
    for n, time in zip(narrower, times, strict=True):
        costs[n] |= {"latency_ratio": time.ratio, "latency_reliable": time.reliable}
    return [
        _cell(task, result, opened, top1.get(task.label)) | found
        for task, result, found in zip(tasks, results, costs, strict=True)
    ]


def _cost(result: RepairResult) -> Record:
    """What is left of the dense model's cost; time is not measured yet."""
    before = result.cost_before
    ratios = over(asdict(result.cost), asdict(before)) if before else {}
    return {
        "macs_share": ratios.get("macs"),
        "parameters_share": ratios.get("parameters"),
        "latency_ratio": None,
        "latency_reliable": None,
    }


def latencies(opened: Opened, models: Sequence[onnx.ModelProto]) -> list[Latency]:
    """Times of the models, side by side with the dense one, which is left out of the answer."""
    count = fixed_batch(model_inputs(opened.proto)) or 1
    sample = opened.batches.batches[0].samples[0]
    feeds = opened.batches.feeds(Batch(0, (sample,) * count, held_out=False))
    runners = [Runner(m, opened.device) for m in (opened.proto, *models)]
    return measure(runners, feeds, count)[1:]


def _cell(task: Task, result: RepairResult, opened: Opened, top1: Accuracy | None) -> Record:
    value, output, agreement = _value(opened, result.repaired_outputs, top1)
    low = high = None
    if top1:
        low, high = top1.low, top1.high
    elif agreement is not None and result.answers and result.answers.output == output:
        low, high = wilson(round(agreement * opened.checked), opened.checked)
    match = result.repaired_outputs[output or next(iter(result.repaired_outputs))]
    return {
        **place(task.options),
        "zeros": result.sparsity,
        "value": value,
        "low": low,
        "high": high,
        "agreement": agreement,
        "accuracy": accuracy_dict(top1),
        "cosine": plain(match.cosine),
        "relative_error": plain(match.relative_error),
        "seconds": round(result.seconds, 3),
        "worse_than_pruning": is_worse(
            result.pruned_outputs, result.repaired_outputs, result.rounding
        ),
        "options": result.options.to_dict(),
    }


def _given(tasks: Sequence[Task], opened: Opened, progress: Progress | None) -> list[Record]:
    """The dense model and models that are merely pruned, by magnitude whatever the criterion."""
    models: Mapping[str, onnx.ModelProto] = {
        t.label: opened.proto
        if t.kind == "dense"
        else prune(opened.proto, prune_options(t.options))
        for t in tasks
    }
    top1 = opened.labelled.top1(models, progress) if opened.labelled else {}
    dense = run_checked(opened.proto, opened.batches, opened.device)
    records = []
    for name, model in models.items():
        merely = run_checked(model, opened.batches, opened.device)
        outputs = compare(opened.proto, opened.batches, dense, merely)
        found = top1.get(name)
        value, _, agreement = _value(opened, outputs, found)
        records.append(
            {
                "value": value,
                "agreement": agreement,
                "accuracy": accuracy_dict(found),
            }
        )
    return records


def _value(
    opened: Opened, outputs: Mapping[str, OutputMatch], top1: Accuracy | None
) -> tuple[float, str | None, float | None]:
    """What the curve is of, the output to be told of, and the agreement, if there is any."""
    output, agreement = worst_agreement(outputs)
    value = agreement
    if top1:
        value = top1.share
    elif opened.metric == "cosine":
        output, value = worst_cosine(outputs)
    if value is None:
        raise ModelError(
            "the outputs cannot be compared with the dense model's: their shapes differ"
        )
    return value, output, agreement


def accuracy_dict(found: Accuracy | None) -> Record | None:
    """An accuracy as JSON has it."""
    return None if found is None else {**asdict(found), "share": found.share}

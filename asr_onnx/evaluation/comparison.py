"""Compare models with the dense one they came from: accuracy, agreement, size and speed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray, Feeds, Outputs
from asr_onnx.data.batches import Batch, Batches, as_batches
from asr_onnx.data.labels import Labels, find_labels
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.source import describe
from asr_onnx.declare import fill, option
from asr_onnx.displayed import Displayed
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.evaluation.figures import Figures, Metric
from asr_onnx.evaluation.footprint import Footprint
from asr_onnx.evaluation.gates import (
    Check,
    Failure,
    Gates,
    Measured,
    checks,
    failed,
    worst_agreement,
)
from asr_onnx.evaluation.latency import Latency, measure
from asr_onnx.evaluation.lineup import Lineup, ModelLike, line_up
from asr_onnx.evaluation.match import MatchAccumulator, OutputMatch
from asr_onnx.evaluation.outputs import class_scores
from asr_onnx.execution.session import choose_device
from asr_onnx.graph.cost import Cost, cost_of
from asr_onnx.machine import Execution
from asr_onnx.maths.intervals import Accuracy, Hits, PairedTest, accuracy, paired_test, top_hits
from asr_onnx.parallel import Progress


@dataclass(frozen=True)
class ModelReport:
    """One model; what needs labels is ``None`` without, what compares is for the dense model.

    ``outputs``: each output against the dense model's.  ``agreement``: share of the dense model's
    answers, of the output where it is lowest (see ``gates.worst_agreement``).  ``metrics`` are the
    user's, by name, the dense model's being what it gets against itself.  ``cost`` is for samples
    of the first one's size.

    ``top1``, ``topk``: accuracies.  ``against_dense`` and ``against_previous`` (``None`` for the
    first model, whose previous one is the dense one) test top-1 on the same samples.
    """

    name: str
    footprint: Footprint
    cost: Cost
    outputs: Mapping[str, OutputMatch]
    agreement: float | None = None
    metrics: Mapping[str, float] | None = None
    top1: Accuracy | None = None
    topk: Accuracy | None = None
    against_dense: PairedTest | None = None
    against_previous: PairedTest | None = None
    latency: Latency | None = None


@dataclass(frozen=True)
class Comparison(Displayed):
    """The dense model and the others, all on the same ``samples`` (a number).

    ``labels`` says where the labels come from, ``None`` without any; ``class_output`` is the first
    output (N, classes), ``k`` the k of ``topk``, ``None`` where it would say nothing.
    """

    dense: ModelReport
    models: tuple[ModelReport, ...]
    samples: int
    labels: str | None
    class_output: str | None
    k: int | None
    preprocessing: str
    device: str

    def failures(self, gates: Gates) -> list[Failure]:
        """Every gate that a model fails; see ``evaluation.gates``."""
        return failed(self.checks(gates))

    def checks(self, gates: Gates) -> list[Check]:
        """Every gate that is set, held against each model."""
        dense = self.dense.top1.share if self.dense.top1 else None
        found = []
        for m in self.models:
            accuracy = m.top1.share if m.top1 else None
            counted = m.top1.total if m.top1 else 0
            measured = Measured(m.outputs, accuracy, dense, m.metrics, counted)
            found += checks(gates, measured, m.name)
        return found


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """How models are compared.  Raises ``UsageError`` for invalid values."""

    topk: int = option(5, "Also tell how often the label is among so many.", kind="positive")
    num_samples: int | None = option(None, "Draw so many.  [default: all]", kind="positive")
    batch_size: int = option(32, "Samples run at a time.", kind="positive")
    seed: int = option(0, "Of the draw.", kind="natural")
    latency: bool = option(True, "Time the models.", off="--no-latency")

    def __post_init__(self) -> None:
        fill(self)
        if self.topk < 1:
            raise UsageError(f"top-{self.topk}: k is not positive")


def compare(
    dense: ModelLike,
    models: Iterable[ModelLike] | Mapping[str, ModelLike],
    data: object,
    labels: object = None,
    options: CompareOptions | None = None,
    *,
    classes: object = None,
    preprocess: Preprocess | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    figures: Figures | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run ``dense`` and ``models`` (files or protos; a mapping names them) on the same ``data``.

    ``data`` is what ``as_batches`` takes, ``labels`` and ``classes`` what ``find_labels`` does:
    by default the class folders of images are their labels, ``False`` is for no labels.
    ``input_shapes`` by input name, batch axis first, settle dimensions that all models leave open.
    ``figures`` declare class axes, and a metric.  Outputs are compared batch by batch and not kept,
    except for a metric.  ``progress`` is called with (done, total, what) before each batch.

    Raises ``ModelError``, ``CalibrationError``, ``ProviderError`` or ``UsageError``, each with one
    line that names the cause.
    """
    options = options or CompareOptions()
    device = choose_device((execution or Execution()).providers)
    lineup = line_up(dense, models, device, input_shapes)
    batches = as_batches(
        data.samples if isinstance(data, Batches) else data,
        lineup.inputs,
        preprocess,
        batch_size=lineup.batch or options.batch_size,
        num_samples=sys.maxsize if options.num_samples is None else options.num_samples,
        seed=options.seed,
        holdout=0.0,
    )
    found = find_labels(labels, batches.samples, classes)
    figures = figures or Figures()
    axes = figures.axes(lineup.entries[0].proto)
    tally = _Tally(batches, found, options.topk, labels is not None, axes, figures.metric)
    for batch in batches.batches:
        if progress:
            progress(batch.index, len(batches), "batches")
        tally.update(lineup, batch)
    first = _first(lineup, batches)
    times = _times(lineup, first) if options.latency else [None] * len(lineup.entries)
    sizes = {name: array.shape for name, array in first.items()}
    costs = [cost_of(e.proto, sizes) for e in lineup.entries]
    reports = tally.reports(lineup, times, costs)
    return Comparison(
        dense=reports[0],
        models=tuple(reports[1:]),
        samples=batches.num_solve,
        labels=tally.labels.source if tally.labels else None,
        class_output=tally.class_output,
        k=tally.k if tally.labels else None,
        preprocessing=describe(batches.samples),
        device=str(device),
    )


def _first(lineup: Lineup, batches: Batches) -> Feeds:
    """The first sample, as many times as the models insist on."""
    sample = batches.batches[0].samples[0]
    return batches.feeds(Batch(0, (sample,) * (lineup.batch or 1), held_out=False))


def _times(lineup: Lineup, feeds: Feeds) -> Sequence[Latency | None]:
    return measure([e.runner for e in lineup.entries], feeds, lineup.batch or 1)


class _Tally:
    """What is counted batch by batch; position 0 is the dense model."""

    def __init__(
        self,
        batches: Batches,
        labels: Labels | None,
        topk: int,
        required: bool,
        axes: Mapping[str, int],
        metric: Metric | None,
    ) -> None:
        self.labels = labels
        self.class_output: str | None = None
        self.k: int | None = topk
        self._batches = batches
        self._required = required
        self._axes, self._metric = axes, metric
        self._kept: dict[int, list[Outputs]] = {}  # by model, for the metric
        self._matches: dict[tuple[int, str], MatchAccumulator] = {}
        self._hits: dict[tuple[int, int], list[Hits]] = {}  # by model and k

    def update(self, lineup: Lineup, batch: Batch) -> None:
        dense: dict[str, AnyArray] = {}
        for index, outputs in enumerate(lineup.run(self._batches.feeds(batch))):
            if not index:
                dense = outputs
                if not batch.index:
                    self._find_classes(dense, len(batch.samples))
            name = self.class_output
            if name and outputs[name].shape != dense[name].shape:
                raise ModelError(
                    f"output '{name}' of '{lineup.entries[index].name}' has shape "
                    f"{list(outputs[name].shape)}, the dense model's {list(dense[name].shape)}"
                )
            if index:
                for output, values in dense.items():
                    fresh = MatchAccumulator(self._axes.get(output))
                    match = self._matches.setdefault((index, output), fresh)
                    match.update(values, outputs[output], len(batch.samples))
            if self._metric:
                self._kept.setdefault(index, []).append(outputs)
            if name and self.labels:
                self._count(index, outputs[name], self.labels.values[list(batch.samples)])

    def _find_classes(self, outputs: Mapping[str, AnyArray], count: int) -> None:
        """Settle which output holds the classes, and whether the labels go with it."""
        found = (n for n, a in outputs.items() if class_scores(a, count) is not None)
        self.class_output = next(found, None)
        if self.class_output is None:
            if self.labels and self._required:
                raise ModelError(
                    "labels are given, but no output of the dense model is [samples, classes]: "
                    "leave them out"
                )
            self.labels = self.k = None
            return
        classes = outputs[self.class_output].shape[1]
        if self.k is not None and not 1 < self.k < classes:
            self.k = None
        if self.labels:
            self.labels.check(classes, self._batches.samples, self.class_output)

    def _count(self, index: int, scores: AnyArray, labels: NDArray[np.int64]) -> None:
        flat = scores.reshape(len(scores), -1)
        for k in {1, self.k or 1}:
            self._hits.setdefault((index, k), []).append(top_hits(flat, labels, k))

    def reports(
        self, lineup: Lineup, times: Sequence[Latency | None], costs: Sequence[Cost]
    ) -> list[ModelReport]:
        """The records of all models, the dense one first."""
        hits = {key: np.concatenate(parts) for key, parts in self._hits.items()}
        sizes = [len(b.samples) for b in self._batches.batches]
        reports = []
        for index, entry in enumerate(lineup.entries):
            outputs = {o: m.result() for (i, o), m in self._matches.items() if i == index}
            own, of_k = hits.get((index, 1)), hits.get((index, self.k or 0))
            reports.append(
                ModelReport(
                    name=entry.name,
                    footprint=entry.footprint,
                    cost=costs[index],
                    outputs=outputs,
                    metrics=self._metric(self._kept[0], self._kept[index], sizes)
                    if self._metric
                    else None,
                    agreement=worst_agreement(outputs)[1],
                    top1=None if own is None else accuracy(own),
                    topk=None if of_k is None else accuracy(of_k),
                    against_dense=paired_test(hits[0, 1], own)
                    if index and own is not None
                    else None,
                    against_previous=paired_test(hits[index - 1, 1], own)
                    if index > 1 and own is not None
                    else None,
                    latency=times[index],
                )
            )
        return reports

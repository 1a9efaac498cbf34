"""Gates as an automatic amount asks for them: the search goes by one half, the other judges.

Who takes the best of many on some samples sees it too well there.  Where there are enough samples
they are halved, and what the search settles on has to pass on the other half and on all of them.
What the dense model gives is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx

from asr_onnx.arrays import Outputs
from asr_onnx.data.batches import Batches
from asr_onnx.errors import UsageError
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Failure, Gates, Measured, failures
from asr_onnx.evaluation.gates import figures as figures_of
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.evaluation.match import compare_outputs
from asr_onnx.execution.session import Device
from asr_onnx.maths.halves import halves
from asr_onnx.maths.intervals import Hits, drop_interval
from asr_onnx.parallel import Progress
from asr_onnx.repairing.job import run_checked
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import Looked, Verdict
from asr_onnx.repairing.verdict import judge

ENOUGH = 400  # samples that are halved; a share of fewer is not known well enough to go by


class GateJudge:
    """The verdict of ``gates`` on repairs of ``dense``, made and held out on ``batches``.

    ``seed`` draws the halves; ``name`` is what the model is called in messages; ``allow_worse`` is
    about plain pruning, see ``verdict.judge``.

    Raises ``UsageError`` when there is no gate, or one on labels but no ``labelled`` data.
    """

    def __init__(
        self,
        gates: Gates,
        dense: onnx.ModelProto,
        batches: Batches,
        labelled: LabelledData | None,
        figures: Figures,
        device: Device,
        name: str = "the repaired model",
        seed: int = 0,
        allow_worse: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if gates == Gates():
            raise UsageError(
                "an automatic amount needs a quality gate to tell what is good enough: give "
                "--max-drop, --min-agreement, --min-cosine or another"
            )
        if gates.label_gates and labelled is None:
            raise UsageError(f"{gates.label_gates[0]} needs labelled data: give --data")
        self.gates, self.name, self.allow_worse = gates, name, allow_worse
        self._dense, self._batches, self._device = dense, batches, device
        self._labelled = labelled if gates.label_gates else None
        self._figures, self._progress = figures, progress
        self._parts = self._halves(seed)
        asked = gates.of_outputs != Gates()
        self._halved = asked and batches.num_held_out >= ENOUGH and len(batches.checked) > 1

    def __call__(self, result: RepairResult) -> Verdict:
        """The verdict; what costs least is asked first, and no more than is needed."""
        search, *other = self._outputs(result)
        gates = self.gates.of_outputs
        failed = failures(gates, search, self.name)
        failed += judge(result, Gates(), self.name, allow_worse=self.allow_worse).failures
        if failed or not self._parts:
            searched = Looked(tuple(failed), dict(figures_of(gates, search)))
            hits: list[Hits] = []
        else:
            hits = [self._hits(result, self._parts[0])]
            searched = self._look(search, hits, self._parts[:1])
        if not other and len(self._parts) < 2:
            return Verdict(searched)
        if searched.failures:
            return Verdict(replace(searched, failures=_on("of the search", searched.failures)))
        if len(self._parts) > 1:
            hits.append(self._hits(result, self._parts[1]))
        judged = self._look(other[0] if other else search, hits[-1:], self._parts[-1:])
        told = _on("kept for the judgement", judged.failures)
        whole = self._look(_measured(result), hits, self._parts)
        known = {f.gate for f in told}
        more = tuple(f for f in whole.failures if f.gate not in known)
        return Verdict(searched, replace(judged, failures=(*told, *more)))

    def describe(self) -> str:
        """Which samples it goes by, in words."""
        return "; ".join(self._words())

    def _words(self) -> Iterator[str]:
        if self._parts:
            search, *other = (len(p) for p in self._parts)
            yield _apart("accuracy", search, *other)
        if self.gates.of_outputs != Gates():
            checked = self._batches.checked
            sides = [checked[0::2], checked[1::2]] if self._halved else [checked]
            yield _apart("outputs", *(sum(len(b.samples) for b in side) for side in sides))

    def _halves(self, seed: int) -> list[Sequence[int]]:
        """Indices of the labelled samples of the search, and of the judgement if there are any."""
        if self._labelled is None:
            return []
        labels = self._labelled.labels.values
        if len(labels) < ENOUGH:
            return [range(len(labels))]
        return [half.tolist() for half in halves(labels, seed)]

    @cached_property
    def _dense_hits(self) -> Hits:
        assert self._labelled is not None
        return self._labelled.hits({"dense": self._dense}, progress=self._progress)["dense"]

    @cached_property
    def _dense_outputs(self) -> list[Outputs]:
        return run_checked(self._dense, self._batches, self._device)

    def _hits(self, result: RepairResult, part: Sequence[int]) -> Hits:
        assert self._labelled is not None
        models = {self.name: result.model}
        return self._labelled.hits(models, part, self._progress)[self.name]

    def _outputs(self, result: RepairResult) -> list[Measured]:
        """Outputs on the samples of the search, and on those of the judgement if there are any."""
        if not self._halved:
            return [_measured(result)]
        found = run_checked(result.model, self._batches, self._device)
        axes = self._figures.axes(self._dense)
        sides = []
        for start in (0, 1):
            dense, own = self._dense_outputs[start::2], found[start::2]
            sizes = [len(b.samples) for b in self._batches.checked[start::2]]
            metric = self._figures.metric
            metrics = metric(dense, own, sizes) if metric else None
            sides.append(Measured(compare_outputs(dense, own, sizes, axes), metrics=metrics))
        return sides

    def _look(
        self, measured: Measured, hits: Sequence[Hits], parts: Sequence[Sequence[int]]
    ) -> Looked:
        """The gates on outputs that were ``measured``, and on ``hits`` on these ``parts``."""
        if not parts:
            return self._looked(measured, 0, None)
        own = np.concatenate(hits)
        dense = self._dense_hits[np.concatenate([np.asarray(p, np.int64) for p in parts])]
        full = replace(
            measured,
            accuracy=float(own.mean()),
            dense_accuracy=float(dense.mean()),
            labelled=own.size,
        )
        return self._looked(full, own.size, drop_interval(dense, own))

    def _looked(
        self, measured: Measured, labelled: int, drop: tuple[float, float] | None
    ) -> Looked:
        found: list[Failure] = failures(self.gates, measured, self.name)
        return Looked(tuple(found), dict(figures_of(self.gates, measured)), labelled, drop)


def _on(samples: str, failed: Sequence[Failure]) -> tuple[Failure, ...]:
    """Failures that say which samples they are on, where there are others."""
    return tuple(replace(f, reason=f"{f.reason}, on the samples {samples}") for f in failed)


def _measured(result: RepairResult) -> Measured:
    """A repair's outputs on all the samples held out."""
    return Measured(result.repaired_outputs, metrics=(result.metrics or {}).get("repaired"))


def _apart(what: str, searched: int, judged: int = 0) -> str:
    if judged:
        return f"{what}: searched on {searched:,} samples, judged on {judged:,} others"
    return f"{what}: searched and judged on the same {searched:,} samples, too few to halve"

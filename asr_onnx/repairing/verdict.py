"""Whether a repaired model may be written: quality gates, and no worse than plain pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.gates import Check, Failure, Gates, Measured, checks, failed
from asr_onnx.repairing.result import RepairResult, closest, is_worse

PLAIN = "no worse than unrepaired"  # the gate that is always there


@dataclass(frozen=True)
class Judgement:
    """What speaks against a repaired model.

    ``failed`` are those of ``gates`` that it fails.  ``worse`` tells how it is worse than plain
    pruning; ``None`` where it is not, or may be.  ``held`` is all that it was held against.
    """

    gates: Gates
    failed: tuple[Failure, ...] = ()
    worse: Failure | None = None
    held: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> list[Failure]:
        """Everything that speaks against the model."""
        return [*self.failed, *([self.worse] if self.worse else [])]

    @property
    def checks(self) -> list[Check]:
        """All that it was held against, with its figures and what came of it."""
        reasons = {f.gate or PLAIN: f.reason for f in self.failures}
        return [c if c.reason else replace(c, reason=reasons.get(c.gate, "")) for c in self.held]

    def also(self, failed: Sequence[Failure]) -> Judgement:
        """With the failures of other gates."""
        known = {f.gate for f in self.failures}
        more = tuple(f for f in failed if f.gate not in known)
        return replace(self, failed=(*self.failed, *more))

    def refusal(self, kept: Path | None) -> str:
        """One line for a model that did not pass and was written to ``kept``, if at all."""
        count = len(self.failed)
        reasons = [f"{count} quality gate{'s' * (count > 1)} failed"] if count else []
        reasons += [self.worse.reason] if self.worse else []
        done = f"the model is kept as '{kept}'" if kept else "no model is written"
        cure = "; give more or better calibration images, less sparsity, or --force"
        return f"{', and '.join(reasons)}: {done}{'' if count else cure}"


def judge(
    result: RepairResult,
    gates: Gates,
    name: str,
    accuracy: Comparison | None = None,
    allow_worse: bool = False,
) -> Judgement:
    """Hold a repaired model, called ``name``, against ``gates`` and against plain pruning.

    Outputs are compared on the images held out, accuracy is that of ``accuracy``'s only model.
    ``allow_worse`` is about plain pruning; no gate is waived.
    """
    metrics = (result.metrics or {}).get("repaired")
    measured = Measured(result.repaired_outputs, metrics=metrics)
    if accuracy and accuracy.models[0].top1 and accuracy.dense.top1:
        top1, dense = accuracy.models[0].top1.share, accuracy.dense.top1.share
        counted = accuracy.models[0].top1.total
        measured = replace(measured, accuracy=top1, dense_accuracy=dense, labelled=counted)
    found = checks(gates, measured, name)
    outputs = result.pruned_outputs, result.repaired_outputs, result.rounding
    plain = "plain rounding" if result.options.quantizes else "plain pruning"
    text = ""
    if how := is_worse(*outputs):
        text = f"repair did worse than {plain} on held-out images ({how})"
    what = f"error on held-out images, against that of {plain}"
    same = Check(name, PLAIN, what, *closest(*outputs), False, text, waived=allow_worse)
    worse = Failure(name, None, text) if text and not allow_worse else None
    return Judgement(gates, tuple(failed(found)), worse, (*found, same))

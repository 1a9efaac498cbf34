"""What three models answer to single samples: the arg-max of a class output, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asr_onnx.arrays import Outputs
from asr_onnx.data.batches import Batches
from asr_onnx.evaluation.outputs import class_scores

SHOWN = 12  # samples of each kind in a report
_MODELS = ("dense", "pruned", "repaired")


@dataclass(frozen=True)
class SampleAnswer:
    """A sample by its position in the calibration's ``samples``, and the class each model says.

    The classes are ``None`` for models without a class output.
    """

    index: int
    name: str
    dense: int | None = None
    pruned: int | None = None
    repaired: int | None = None


@dataclass(frozen=True)
class Answers:
    """Answers to the samples a result is checked on, of the class output called ``output``."""

    output: str | None
    samples: tuple[SampleAnswer, ...]

    def to_dict(self) -> dict[str, Any]:
        """The first samples, and the first of those that repaired and dense model answer apart."""
        differing = [s for s in self.samples if s.dense != s.repaired]
        return {
            "output": self.output,
            "checked": len(self.samples),
            "shown": [vars(s) for s in self.samples[:SHOWN]],
            "differing_count": len(differing),
            "differing": [vars(s) for s in differing[:SHOWN]],
        }


def collect(calibration: Batches, dense: Outputs, pruned: Outputs, repaired: Outputs) -> Answers:
    """Answers to the held-out samples, or to all when none is held out, in the outputs' order.

    The class output is the first that gives each sample a class in all three models.
    """
    samples = [(i, calibration.samples.name(i)) for b in calibration.checked for i in b.samples]
    three = (dense, pruned, repaired)
    for output in dense:
        scores = [class_scores(o[output], len(samples)) for o in three if output in o]
        columns = [s.argmax(axis=1).tolist() for s in scores if s is not None]
        if len(columns) == len(three):
            rows = (dict(zip(_MODELS, row, strict=True)) for row in zip(*columns, strict=True))
            pairs = zip(samples, rows, strict=True)
            return Answers(output, tuple(SampleAnswer(*s, **row) for s, row in pairs))
    return Answers(None, tuple(SampleAnswer(*s) for s in samples))

"""What would be pruned and repaired, and what not and why."""

from __future__ import annotations

from dataclasses import dataclass

from asr_onnx.graph.records import Site, Skipped
from asr_onnx.graph.sites import Survey
from asr_onnx.pruning.choose import fixed, left_dense, rows_are_rescaled
from asr_onnx.pruning.patterns import Unstructured


@dataclass(frozen=True)
class Inspection:
    """The sites of a model, the nodes left alone, and whether BatchNormalization was folded."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    folded: bool

    @property
    def weights(self) -> int:
        """Number of weights that can be pruned."""
        return sum(s.weight.value.size for s in self.sites)

    @property
    def zeros(self) -> int:
        """How many of them are zero already."""
        return sum(s.zeros for s in self.sites)


def look_at(survey: Survey) -> Inspection:
    """What the sites of a model say about pruning it."""
    learned = tuple(s for s in survey.sites if not fixed(s))
    left = left_dense(survey.sites, Unstructured())
    return Inspection(learned, survey.skipped + left, rows_are_rescaled(survey.sites))

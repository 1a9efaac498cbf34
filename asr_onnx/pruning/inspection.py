"""What would be pruned and repaired, and what not and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from asr_onnx.errors import ModelError
from asr_onnx.graph.cost import Cost, cost
from asr_onnx.graph.inputs import samples_in
from asr_onnx.graph.records import Site, Skipped
from asr_onnx.graph.shapes import Shapes, macs
from asr_onnx.graph.sites import Survey
from asr_onnx.pruning.choose import fixed, left_dense, rows_are_rescaled
from asr_onnx.pruning.patterns import Unstructured


@dataclass(frozen=True)
class Inspection:
    """The sites of a model, the nodes left alone, and whether BatchNormalization was folded.

    ``cost`` is the whole model's, ``macs`` each site's by its name, both for one sample.
    """

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    folded: bool
    cost: Cost
    macs: Mapping[str, int | None]

    @property
    def weights(self) -> int:
        """Number of weights that can be pruned."""
        return sum(s.weight.value.size for s in self.sites)

    @property
    def zeros(self) -> int:
        """How many of them are zero already."""
        return sum(s.zeros for s in self.sites)


def look_at(
    survey: Survey, model: onnx.ModelProto, sizes: Mapping[str, Sequence[int | None]] | None = None
) -> Inspection:
    """What the sites of a model say about pruning it; ``sizes`` of inputs as in ``Shapes.of``."""
    learned = tuple(s for s in survey.sites if not fixed(s))
    left = left_dense(survey.sites, Unstructured())
    folded = rows_are_rescaled(survey.sites)
    try:
        shapes, samples = Shapes.of(model, sizes), samples_in(model, sizes)
    except ModelError:  # nothing can be fed, but there is something to be told
        shapes, samples = Shapes({}, {}), 1
    each = macs(model, shapes)
    told = {s.name: each.get(s.output) for s in learned}
    per_sample = {n: None if count is None else round(count / samples) for n, count in told.items()}
    whole = cost(model, shapes, samples)
    return Inspection(learned, survey.skipped + left, folded, whole, per_sample)

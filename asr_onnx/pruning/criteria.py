"""By what weights are chosen: a table of pure functions of a layer's rows (G, R, K).

To add a criterion, enter it into ``CRITERIA``; from Python, a score may be given as it is:
``RepairOptions(criterion=lambda rows: abs(rows) ** 2)``, or a ``Criterion``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import AnyArray, FloatArray, Mask
from asr_onnx.errors import UsageError
from asr_onnx.maths.mask_search import Project, select
from asr_onnx.maths.second_moments import Gram

Score = Callable[[AnyArray], AnyArray]  # rows -> scores of the same shape; the highest stay
# Second moments, rows, the importance of each row's error (G, R), what masks are allowed -> mask
Search = Callable[[Gram, FloatArray, FloatArray, Project], Mask]
Choose = Callable[[Gram, FloatArray, FloatArray], Mask]  # a search with its ``Project``


@dataclass(frozen=True)
class Criterion:
    """Either a ``score`` of single weights, known beforehand, or a ``search`` in a layer's data.

    Scores are compared over all sites at once; a search gets what the density of its layer allows.
    ``help`` says in a phrase what is compared.
    """

    score: Score | None = None
    search: Search | None = None
    help: str = ""

    def __post_init__(self) -> None:
        if (self.score is None) == (self.search is None):
            raise UsageError("a criterion is either a score or a search")

    def within(self, project: Project) -> Choose:
        """The search among the masks that ``project`` allows."""
        search = self.search
        assert search is not None
        return lambda gram, rows, importance: search(gram, rows, importance, project)


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(score=np.abs, help="one threshold for all weights"),
    "obs": Criterion(
        search=select, help="layer by layer, by what a weight costs the layer's output"
    ),
}


def criterion_of(value: str | Score | Criterion) -> Criterion:
    """The criterion of that name, or of a score given by itself."""
    if isinstance(value, Criterion):
        return value
    return Criterion(score=value) if callable(value) else CRITERIA[value]

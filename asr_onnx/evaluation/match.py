"""How alike an output is to the dense model's: figures that need no layout, and agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray, Outputs
from asr_onnx.evaluation.outputs import batch_axis, class_scores
from asr_onnx.maths.likeness import Likeness


@dataclass(frozen=True)
class OutputMatch:
    """One output of a model against the dense model's, over all samples.

    ``relative_error``: root of the mean over channel groups of the squared difference over the
    variance of the dense output; 0 for equal outputs, about 1 for one that ignores its input.
    ``cosine``: mean over the groups of the cosine between both outputs' deviations from their
    means; for an output of one number that is the correlation.  Both are NaN for text, and where
    the shapes differ, as the number of detections does.  See ``maths.likeness``.

    ``agreement``: share of answers (arg-max along the class axis) that are the dense model's;
    ``None`` where the class axis is not known, or the dense model always gives the same answer
    (``one_answer``).  ``answers`` is the number of answers that count.  Where there is one for each
    position, as in a text or a map, those that are the dense model's most frequent one (blank,
    background) do not.
    """

    samples: int
    agreement: float | None
    cosine: float
    relative_error: float
    answers: int = 0
    one_answer: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether the class axis is known."""
        return self.agreement is not None or self.one_answer


def compare_output(
    dense: AnyArray, other: AnyArray, class_axis: int | None = None, samples: int | None = None
) -> OutputMatch:
    """Compare two arrays, commonly of one shape (N, ...); see ``MatchAccumulator``."""
    match = MatchAccumulator(class_axis)
    match.update(dense, other, samples)
    return match.result()


def compare_outputs(
    dense: Iterable[Outputs],
    other: Iterable[Outputs],
    samples: Iterable[int],
    axes: Mapping[str, int] | None = None,
) -> dict[str, OutputMatch]:
    """Compare outputs of the same name, batch by batch of so many ``samples``.

    ``axes`` are the class axes that are known.
    """
    found: dict[str, MatchAccumulator] = {}
    for mine, others, count in zip(dense, other, samples, strict=True):
        for name in mine:
            if name in others:
                match = found.setdefault(name, MatchAccumulator((axes or {}).get(name)))
                match.update(mine[name], others[name], count)
    return {name: match.result() for name, match in found.items()}


class MatchAccumulator:
    """``OutputMatch`` of one output, batch by batch: nothing of a batch is kept but sums.

    ``class_axis`` is the axis of the classes.  Without it classes are looked for where each sample
    has one: (N, C) and (N, C, 1, 1).
    """

    def __init__(self, class_axis: int | None = None) -> None:
        self._class_axis = class_axis
        self._batch_axis = 0
        self._samples = 0
        self._alike = True
        self._likeness: Likeness | None = None
        self._answers: _Answers | None = None

    def update(self, dense: AnyArray, other: AnyArray, samples: int | None = None) -> None:
        """Add a batch of so many ``samples``, by default (B, ...), of both models."""
        dense, other = np.atleast_1d(dense), np.atleast_1d(other)
        samples = len(dense) if samples is None else samples
        self._samples += samples
        self._alike &= dense.shape == other.shape and _numeric(dense) and _numeric(other)
        if not self._alike:
            return
        if self._likeness is None:
            self._batch_axis = batch_axis(dense.shape, samples) or 0
        mine, others = (self._scores(y, samples) for y in (dense, other))
        if mine is not None and others is not None:
            self._answers = self._answers or _Answers()
            self._answers.update(mine, others)
        axis = self._batch_axis if self._batch_axis < dense.ndim else 0
        a, b = (np.moveaxis(np.asarray(y, np.float64), axis, 0) for y in (dense, other))
        self._likeness = self._likeness or Likeness(a.shape)
        self._likeness.update(a, b)

    def _scores(self, output: AnyArray, samples: int) -> AnyArray | None:
        """Scores (answers, C); ``None`` where no class axis is known."""
        axis = self._class_axis
        if axis is None:
            return class_scores(output, samples)
        if not -output.ndim <= axis < output.ndim:
            return None
        axis %= output.ndim
        if axis == self._batch_axis or output.shape[axis] < 2:
            return None
        return np.moveaxis(output, axis, -1).reshape(-1, output.shape[axis])

    def result(self) -> OutputMatch:
        """The match over all batches so far."""
        if not (self._alike and self._samples and self._likeness):
            return OutputMatch(self._samples, None, float("nan"), float("nan"))
        cosine, error = self._likeness.result()
        if self._answers is None:
            return OutputMatch(self._samples, None, cosine, error)
        agreement, count, one = self._answers.result(self._samples)
        return OutputMatch(self._samples, agreement, cosine, error, count, one)


def _numeric(array: AnyArray) -> bool:
    return array.dtype.kind in "fiub"


class _Answers:
    """Counts of the dense model's answers by class, and of those that are the same."""

    def __init__(self) -> None:
        self._total = np.zeros(0, np.int64)
        self._same = np.zeros(0, np.int64)

    def update(self, dense: AnyArray, other: AnyArray) -> None:
        """Add scores (answers, C) of both models; NaN is no answer, and as such a wrong one."""
        mine, others = _answer(dense), _answer(other)
        self._total = _count(mine[mine >= 0], self._total)
        self._same = _count(mine[(mine >= 0) & (mine == others)], self._same, len(self._total))

    def result(self, samples: int) -> tuple[float | None, int, bool]:
        """Agreement, answers that count, and whether there is but one answer."""
        classes = np.count_nonzero(self._total)
        if classes < 2:
            return None, 0, bool(classes == 1)
        counts = np.ones(len(self._total), bool)
        if self._total.sum() > samples:
            counts[self._total.argmax()] = False
        total = int(self._total[counts].sum())
        return int(self._same[counts].sum()) / total, total, False


def _answer(scores: AnyArray) -> NDArray[np.int64]:
    """The class with the highest score, -1 where there is NaN."""
    found: NDArray[np.int64] = scores.argmax(axis=1)
    return np.where(np.isnan(scores).any(axis=1), -1, found)


def _count(
    answers: NDArray[np.int64], before: NDArray[np.int64], classes: int = 0
) -> NDArray[np.int64]:
    """Occurrences of each class added to those ``before``; batches may have several C."""
    found = np.bincount(answers, minlength=max(len(before), classes)).astype(np.int64)
    found[: len(before)] += before
    return found

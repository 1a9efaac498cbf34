"""An automatic amount: repair at one amount after another until the sparsest that passes is known.

What a repair is and whether it is good enough is asked of functions.  Of the repaired models only
the one is kept that would be the result as things stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from asr_onnx.errors import OutOfReachError
from asr_onnx.evaluation.gates import Failure
from asr_onnx.maths.bisection import search
from asr_onnx.options import RepairOptions
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import (
    AMOUNTS,
    POINTS,
    AutoResult,
    Looked,
    Trial,
    Trials,
    Verdict,
    rank,
)

STEPS = 8  # which is how many close the gap on either side of it

Judge = Callable[[RepairResult], Verdict]
Repair = Callable[[int, RepairOptions], RepairResult]  # of so many percent removed


class Kept(Protocol):
    """Where trials of an earlier run are, and where those of this one go."""

    def read(self, points: int) -> Trial | None: ...

    def write(self, trial: Trial) -> None: ...


def order(options: RepairOptions, few: bool) -> tuple[RepairOptions, ...]:
    """What is tried at an amount until one passes.

    Of recipe auto the strongest alone, as at the amount that is looked for the others fail first;
    of a ``few`` samples it is not always the best, and the others have their turn, too.
    """
    rungs = options.rungs[::-1]
    return rungs if few else rungs[:1]


def find(
    repair: Repair,
    judge: Judge,
    rungs: Sequence[RepairOptions],
    amount: str,
    most: int = STEPS,
    kept: Kept | None = None,
    samples: str = "",
    end: int = POINTS,
) -> AutoResult:
    """The sparsest of at most ``most`` amounts tried that may be the result.

    ``amount`` names what is searched for, ``samples`` says what ``judge`` goes by; ``end`` percent
    cannot be removed.  What passes the search but not the judgement gives way to the next
    sparser-less that was tried; when none is left, the search goes on below.  A result whose trial
    was ``kept`` is repaired anew.
    """
    work = _Work(repair, judge, rungs, kept)
    first = min(AMOUNTS[amount].first, end - 1)
    steps = len(search(lambda p: work.at(p).verdict.passed, 0, end, first, most))
    passed = [t.points for t in work.tried.values() if t.verdict.passed]
    if passed and not any(t.verdict.stands for t in work.tried.values()):
        search(lambda p: work.at(p).verdict.stands, 0, min(passed), None, most - steps)
    trials = Trials(amount, tuple(work.tried.values()), most, samples, end)
    return AutoResult(work.result(trials.chosen), trials)


class _Work:
    def __init__(
        self, repair: Repair, judge: Judge, rungs: Sequence[RepairOptions], kept: Kept | None
    ) -> None:
        self._repair, self._judge, self._rungs, self._kept = repair, judge, rungs, kept
        self.tried: dict[int, Trial] = {}
        self._best: tuple[Trial, RepairResult] | None = None

    def at(self, points: int) -> Trial:
        """What comes of removing so many percent."""
        before = self._kept.read(points) if self._kept is not None else None
        trial = before or self._try(points)
        self.tried[points] = trial
        return trial

    def _try(self, points: int) -> Trial:
        started = time.perf_counter()
        found: tuple[Verdict, RepairResult] | None = None
        for options in self._rungs:
            try:
                result = self._repair(points, options)
            except OutOfReachError as error:
                return self._out_of_reach(points, options, str(error))
            verdict = self._judge(result)
            if found is None or verdict.passed:  # else the strongest speaks for all
                found = verdict, result
            if verdict.passed:
                break
        assert found is not None, "there is a rung"
        seconds = time.perf_counter() - started
        trial = Trial(points, found[1].options.recipe, found[0], seconds)
        if self._best is None or rank(trial) > rank(self._best[0]):
            self._best = trial, found[1]
        if self._kept is not None:
            self._kept.write(trial)
        return trial

    def _out_of_reach(self, points: int, options: RepairOptions, reason: str) -> Trial:
        """The trial of an amount that cannot go: there is no repair to be judged."""
        failure = Failure("the repaired model", None, reason)
        trial = Trial(points, options.recipe, Verdict(Looked((failure,))), 0.0)
        if self._kept is not None:
            self._kept.write(trial)
        return trial

    def result(self, trial: Trial) -> RepairResult:
        """The repair of a trial: it is at hand, or that of an earlier run is done again."""
        if self._best and self._best[0] == trial:
            return self._best[1]
        options = next(o for o in self._rungs if o.recipe == trial.recipe)
        return self._repair(trial.points, options)

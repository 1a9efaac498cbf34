"""What an automatic amount tried, and which of it is the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from asr_onnx.displayed import Displayed
from asr_onnx.evaluation.gates import Failure
from asr_onnx.provenance import plain
from asr_onnx.recipes import RECIPES
from asr_onnx.repairing.result import RepairResult

POINTS = 100  # that amounts are tried in: whole percents


@dataclass(frozen=True)
class Amount:
    """An option that says how much goes: its value ``at`` some share removed.

    ``first``: the percent removed that is tried first.
    """

    at: Callable[[float], float]
    first: int


AMOUNTS = {
    "sparsity": Amount(lambda removed: removed, 75),  # networks mostly bear more, few bear 95
    "macs": Amount(lambda removed: 1 - removed, 40),
}


@dataclass(frozen=True)
class Looked:
    """What was seen on one set of samples.

    ``figures`` by gate.  ``drop`` is a 95 % interval of how much accuracy is lost, where that was
    measured, and ``labelled`` the number of samples it is of.
    """

    failures: tuple[Failure, ...] = ()
    figures: dict[str, float | None] = field(default_factory=dict)
    labelled: int = 0
    drop: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """What is said of a repair: on the samples the search goes by, and on others.

    ``judged`` is ``None`` where the first did not pass, and where there are no others.
    """

    searched: Looked
    judged: Looked | None = None

    @property
    def passed(self) -> bool:
        """Whether the search takes it to be good enough."""
        return not self.searched.failures

    @property
    def stands(self) -> bool:
        """Whether it may be the result."""
        return self.passed and not (self.judged and self.judged.failures)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What speaks against it being the result."""
        return self.searched.failures or (self.judged.failures if self.judged else ())


@dataclass(frozen=True)
class Trial:
    """A repair that removes ``points`` percent; ``before``: in an earlier run."""

    points: int
    recipe: str
    verdict: Verdict
    seconds: float
    before: bool = False

    def to_record(self) -> dict[str, Any]:
        """The trial as JSON can hold it."""
        found: dict[str, Any] = plain(asdict(self))
        return found

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Trial | None:
        """A trial read back, of an earlier run; ``None`` for what is none."""
        try:
            verdict = record["verdict"]
            judged, recipe = verdict["judged"], record["recipe"]
            if recipe not in RECIPES:
                return None
            return cls(
                points=int(record["points"]),
                recipe=recipe,
                verdict=Verdict(_looked(verdict["searched"]), judged and _looked(judged)),
                seconds=float(record["seconds"]),
                before=True,
            )
        except (KeyError, TypeError, ValueError):
            return None


def _looked(record: dict[str, Any]) -> Looked:
    failures = tuple(Failure(**f) for f in record["failures"])
    drop = record["drop"]
    interval = None if drop is None else (float(drop[0]), float(drop[1]))
    return Looked(failures, dict(record["figures"]), int(record["labelled"]), interval)


@dataclass(frozen=True)
class Trials:
    """What was tried of ``amount``, an option, in order; ``most`` were allowed, there is one.

    ``end``: the least percent that cannot be removed, whatever the gates say.
    """

    amount: str
    tried: tuple[Trial, ...]
    most: int
    samples: str  # what they were held against, in words
    end: int = POINTS

    @property
    def chosen(self) -> Trial:
        """The sparsest that may be the result; where there is none, the least sparse."""
        return max(self.tried, key=rank)

    @property
    def failed(self) -> int | None:
        """The least that was tried above what was chosen, and is not to be had; in percent."""
        top = self.chosen.points if self.chosen.verdict.stands else 0
        return min((t.points for t in self.tried if t.points > top), default=None)

    @property
    def closed(self) -> bool:
        """Whether nothing is left between what was chosen and the next that fails."""
        if not self.chosen.verdict.stands:
            return self.failed == 1
        return (self.failed or self.end) - self.chosen.points <= 1

    @property
    def looks(self) -> int:
        """How many had to be judged on other samples, the sparsest first, until one stood."""
        if all(t.verdict.judged is None for t in self.tried):
            return 0
        low = self.chosen.points if self.chosen.verdict.stands else 0
        return sum(t.verdict.passed and t.points >= low for t in self.tried)

    @property
    def inversions(self) -> tuple[tuple[int, int], ...]:
        """Amounts that failed although a larger one stands: (failed, the largest that stands)."""
        top = self.chosen.points if self.chosen.verdict.stands else 0
        failed = (t.points for t in self.tried if not t.verdict.stands and t.points < top)
        return tuple((points, top) for points in sorted(failed))

    @property
    def seconds(self) -> float:
        """What was tried in this run took so long."""
        return sum(t.seconds for t in self.tried if not t.before)

    @property
    def repeated(self) -> int:
        """How many were taken from an earlier run."""
        return sum(t.before for t in self.tried)

    def to_dict(self) -> dict[str, Any]:
        """The path to the result as JSON can hold it; amounts are shares that are removed."""
        chosen = self.chosen
        return {
            "amount": self.amount,
            "chosen": chosen.points / POINTS if chosen.verdict.stands else None,
            "failed": None if self.failed is None else self.failed / POINTS,
            "closed": self.closed,
            "most": self.most,
            "samples": self.samples,
            "looks": self.looks,
            "inversions": [[a / POINTS, b / POINTS] for a, b in self.inversions],
            "seconds": round(self.seconds, 3),
            "tried": [
                {
                    "removed": t.points / POINTS,
                    "recipe": t.recipe,
                    "passed": t.verdict.passed,
                    "stands": t.verdict.stands,
                    "seconds": round(t.seconds, 3),
                    "before": t.before,
                    **{
                        name: plain(asdict(looked)) if looked else None
                        for name, looked in vars(t.verdict).items()
                    },
                }
                for t in self.tried
            ],
        }


def rank(trial: Trial) -> tuple[bool, int]:
    """The larger, the rather it is the result."""
    stands = trial.verdict.stands
    return stands, trial.points if stands else -trial.points


@dataclass(frozen=True)
class AutoResult(Displayed):
    """The repair that was chosen, and how; where none passes, ``failures`` say what is wrong."""

    result: RepairResult
    trials: Trials

    @property
    def failures(self) -> tuple[Failure, ...]:
        return self.trials.chosen.verdict.failures

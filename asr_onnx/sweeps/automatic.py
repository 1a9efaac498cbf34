"""``--sparsity auto``: the sparsest repair of a model that passes its gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from asr_onnx.data.batches import as_batches
from asr_onnx.data.enough import FEW
from asr_onnx.declare import fill, flag, option
from asr_onnx.errors import UsageError
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Failure, Gates
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.execution.session import choose_device
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.machine import Execution
from asr_onnx.options import RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.pipeline import repair, weigh
from asr_onnx.provenance import sha256
from asr_onnx.pruning.sparing import SLACK, most_zeros
from asr_onnx.repairing.amount_search import STEPS, Kept, find, order
from asr_onnx.repairing.gate_judge import ENOUGH, GateJudge
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import AMOUNTS, POINTS, AutoResult, Looked, Trial, Verdict
from asr_onnx.repairing.weighing import Weighed
from asr_onnx.sweeps.folder import SweepFolder
from asr_onnx.sweeps.source import digest

AUTO = "auto"  # what to give for an amount that is to be found


@dataclass(frozen=True, kw_only=True)
class AutoOptions:
    """How an amount is found.  Raises ``UsageError`` for invalid values."""

    auto_steps: int = option(
        STEPS,
        "Of --sparsity auto and --macs auto: how many amounts are tried at most.",
        kind="positive",
    )
    work_dir: Path | None = option(
        None,
        "Of both: a folder that keeps what was tried; started again, the search goes on "
        "where it was.  It may be that of a sweep.",
        kind="path",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        fill(self)
        if self.auto_steps < 1:
            raise UsageError(f"{self.auto_steps} steps find nothing: give at least 1")


def repair_auto(
    proto: onnx.ModelProto,
    data: object,
    judge: Gates | Callable[[RepairResult], Verdict | bool],
    options: RepairOptions | None = None,
    *,
    test: LabelledData | str | Path | None = None,
    amount: str = "sparsity",
    steps: int = STEPS,
    kept: Kept | None = None,
    figures: Figures | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> AutoResult:
    """Repair ``proto`` where as much goes, in whole percents, as leaves it good enough.

    ``data``, ``figures``, ``execution`` and ``progress`` are as for ``repair``; ``options`` leave
    the ``amount`` open: their sparsity, or their macs where channels go; with an N:M pattern the
    sparsity says how many layers get it, see ``pruning.sparing``.  ``judge`` are gates, of
    which those on accuracy take labelled data, ``test``: a path to class folders; or a function
    that says whether a repair is good enough.  At most ``steps`` amounts are tried; the weighing
    pass is shared by all of them.

    The result says what was tried, and has ``failures`` where nothing passes: its repair is then
    the least sparse one tried.  Raises what ``repair`` raises.
    """
    options = options or RepairOptions()
    check_open(options, amount)
    figures, execution = figures or Figures(), execution or Execution()
    batches = as_batches(data, model_inputs(proto))
    if isinstance(judge, Gates):
        device = choose_device(execution.providers)
        if test is not None and not isinstance(test, LabelledData):
            test = LabelledData(proto, Path(test), device=device)
        judge = GateJudge(judge, proto, batches, test, figures, device, progress=progress)

    @cache
    def weighed(rung: RepairOptions) -> Weighed:
        any_amount = with_amount(rung, 1)
        return weigh(proto, batches, any_amount, execution=execution, progress=progress)

    def with_amount(rung: RepairOptions, points: int) -> RepairOptions:
        changed: Any = {amount: AMOUNTS[amount].at(points / POINTS)}
        return replace(rung, **changed)

    def at(points: int, rung: RepairOptions) -> RepairResult:
        chosen = with_amount(rung, points)

        def report(done: int, total: int, what: str) -> None:
            if progress:
                progress(done, total, f"{amount} {100 * getattr(chosen, amount):.0f} %: {what}")

        return repair(
            proto,
            batches,
            chosen,
            figures=figures,
            execution=execution,
            progress=report,
            weighed=weighed(rung),
        )

    rungs = order(options, few=batches.num_solve + batches.num_held_out < FEW)
    samples = judge.describe() if isinstance(judge, GateJudge) else ""
    end = min(POINTS, _most(options) + 1)
    return find(at, _verdicts(judge), rungs, amount, steps, kept, samples, end)


def check_open(options: RepairOptions, amount: str = "sparsity") -> None:
    """Raise ``UsageError`` unless the options leave it open how much goes."""
    auto = f"{flag(amount)} {AUTO}"
    if amount not in AMOUNTS:
        raise UsageError(f"amount '{amount}' is not one of {', '.join(AMOUNTS)}")
    if not options.chooses_mask:
        raise UsageError(f"a model that is pruned already is as sparse as it is: leave out {auto}")
    if _most(options) < 1:
        raise UsageError(
            f"pattern {options.structure} leaves less than 1 % zeros, there is nothing to find: "
            f"leave out {auto}"
        )
    if amount == "macs" and not options.narrows:
        raise UsageError(f"{auto} goes with the pattern channel: add it, or find a sparsity")
    for given in AMOUNTS:
        if getattr(options, given) is not None:
            raise UsageError(f"{given} is given and {amount} to be found: leave one out")


def _most(options: RepairOptions) -> int:
    """The whole percents that the pattern can zero; the amounts that there are."""
    return int(POINTS * (most_zeros(options.structure) + SLACK))


def _verdicts(
    judge: Callable[[RepairResult], Verdict | bool],
) -> Callable[[RepairResult], Verdict]:
    """A judge whose yes or no is a verdict."""

    def asked(result: RepairResult) -> Verdict:
        found = judge(result)
        if isinstance(found, Verdict):
            return found
        failure = Failure("the repaired model", None, "it is not good enough to the judge given")
        return Verdict(Looked(() if found else (failure,)))

    return asked


class KeptTrials:
    """Trials in a sweep's folder, named by ``facts``, all that determines them but the amount."""

    def __init__(self, folder: SweepFolder, facts: object) -> None:
        self._folder, self._facts = folder, facts

    def _name(self, points: int) -> str:
        return f"trial-{digest([self._facts, points])}"

    def read(self, points: int) -> Trial | None:
        """What was tried before; ``None`` where there is nothing, or a file that is damaged."""
        record = self._folder.read(self._name(points))
        return None if record is None else Trial.from_record(record)

    def write(self, trial: Trial) -> None:
        """Keep it; raises ``AsrError`` when it cannot be written."""
        self._folder.write(self._name(trial.points), trial.to_record())


def facts(
    identity: Mapping[str, Any],
    options: RepairOptions,
    gates: Gates,
    figures: Figures,
    amount: str,
    **more: Any,
) -> list[Any]:
    """What determines a trial besides how much goes; ``identity`` is ``source.identity``'s."""
    script = figures.metric.path if figures.metric else None
    return [
        identity,
        options.to_dict() | dict.fromkeys(AMOUNTS),
        asdict(gates),
        [list(figures.class_axis), sorted(sha256([script]).values()) if script else None],
        [amount, ENOUGH, more],
    ]

"""``--sparsity auto`` and ``--macs auto`` of ``asr-onnx repair``: what is asked, and the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import onnx

from asr_onnx.cli.options import record
from asr_onnx.data.batches import Batches
from asr_onnx.declare import fields_of, flag
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Gates
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.execution.session import choose_device
from asr_onnx.machine import Execution
from asr_onnx.options import RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.repairing.gate_judge import GateJudge
from asr_onnx.repairing.trials import AMOUNTS, AutoResult
from asr_onnx.sweeps.automatic import (
    AUTO,
    AutoOptions,
    KeptTrials,
    facts,
    repair_auto,
)
from asr_onnx.sweeps.folder import SweepFolder
from asr_onnx.sweeps.source import identity


@dataclass(frozen=True)
class Automatic:
    """``amount`` is to be found; ``folder`` keeps what is tried, if there is one."""

    amount: str
    steps: int
    folder: SweepFolder | None

    def find(
        self,
        proto: onnx.ModelProto,
        batches: Batches,
        labelled: LabelledData | None,
        options: RepairOptions,
        gates: Gates,
        figures: Figures,
        execution: Execution,
        *,
        files: Mapping[str, str],
        name: str,
        allow_worse: bool,
        progress: Progress,
    ) -> AutoResult:
        """The sparsest repair that passes; ``files`` are the model's hashes, for the folder.

        Raises whatever ``repair_auto`` raises.
        """
        device = choose_device(execution.providers)
        kept = None
        if self.folder:
            self.folder.create()
            known = identity(files, batches, labelled if gates.label_gates else None, device)
            about = facts(known, options, gates, figures, self.amount, allow_worse=allow_worse)
            kept = KeptTrials(self.folder, about)
        judge = GateJudge(
            gates, proto, batches, labelled, figures, device, name, batches.seed, allow_worse,
            progress,
        )  # fmt: skip
        return repair_auto(
            proto,
            batches,
            judge,
            options,
            amount=self.amount,
            steps=self.steps,
            kept=kept,
            figures=figures,
            execution=execution,
            progress=progress,
        )


def parse_automatic(
    settings: Mapping[str, Any], gates: Gates, force: bool
) -> tuple[Automatic | None, dict[str, Any]]:
    """What is to be found, if anything, and the settings without it.

    Raises ``UsageError`` where it cannot be found.
    """
    asked = [name for name in AMOUNTS if settings.get(name) == AUTO]
    if len(asked) > 1:
        raise click.UsageError(
            f"{' and '.join(map(flag, asked))} exclude each other: leave one out"
        )
    given = [flag(n) for n in fields_of(AutoOptions) if settings.get(n) is not None]
    rest = {n: None if n in asked else v for n, v in settings.items()}
    if not asked:
        if given:
            wanted = " or ".join(f"{flag(n)} {AUTO}" for n in AMOUNTS)
            raise click.UsageError(f"{given[0]} is about {wanted}: give that, too")
        return None, rest
    if gates == Gates():
        raise click.UsageError(
            f"{flag(asked[0])} {AUTO} needs a quality gate to tell what is good enough: give "
            "--max-drop, --min-agreement, --min-cosine or another"
        )
    options = record(AutoOptions, settings)
    folder = SweepFolder(options.work_dir, force, "--work-dir") if options.work_dir else None
    return Automatic(asked[0], options.auto_steps, folder), rest

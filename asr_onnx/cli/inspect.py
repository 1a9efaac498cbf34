"""``asr-onnx inspect``: what would be pruned, and what not and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr_onnx.cli.options import MODEL, command, group, of, record
from asr_onnx.cli.terminal import Terminal
from asr_onnx.data.source import InputOptions
from asr_onnx.graph import model_file
from asr_onnx.options import PruneOptions
from asr_onnx.pipeline import inspect as inspect_model
from asr_onnx.pruning.eligibility import EngineOptions
from asr_onnx.pruning.inspection import Inspection
from asr_onnx.reports import engine_tables
from asr_onnx.reports.inspection_tables import already, tables, whole


@command()
@MODEL
@group(
    "What to look at",
    of(
        PruneOptions,
        "pattern",
        "ops",
        pattern="As for repair; channel: which channels stand or fall together, and which stay.",
        ops="Operators to look at.",
    ),
    of(EngineOptions),
)
@group("Data", of(InputOptions, "input_shapes"))
def inspect(model: Path, **settings: Any) -> None:
    """List what would be pruned and repaired in MODEL, and what not and why."""
    options, shapes = record(PruneOptions, settings), record(InputOptions, settings).shapes
    engine = record(EngineOptions, settings).engine
    found = inspect_model(
        model_file.load(model, in_place=True).proto, options.ops, shapes, options.pattern, engine
    )
    console = Terminal()
    if engine:
        _tell_of_engine(console, model, found)
        return
    for table in tables(found):
        console.print(table)
    if found.quantised:
        console.say(already(found))
    if found.sites:
        console.print(
            f"{len(found.sites)} sites, {found.weights:,} weights, {found.zeros:,} of them zero; "
            f"BatchNormalization {'folded or absent' if found.folded else 'kept'}"
        )
    console.say(whole(found))


def _tell_of_engine(console: Terminal, model: Path, found: Inspection) -> None:
    rows = engine_tables.rows(found.layers)
    console.print(engine_tables.table(rows, [found.macs[e.layer.output] for e in found.layers]))
    console.say(engine_tables.summary(rows))
    for line in engine_tables.commands(model, rows):
        console.say(line)

"""``asr-onnx prune``: zero weights and repair nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr_onnx.cli.options import FORCE, MODEL, QUIET, command, group, of, output, record
from asr_onnx.cli.terminal import Terminal
from asr_onnx.graph import model_file
from asr_onnx.graph.saving import save
from asr_onnx.options import PruneOptions
from asr_onnx.pipeline import inspect
from asr_onnx.pipeline import prune as prune_model

SUFFIX = ".pruned.onnx"


@command()
@MODEL
@group("Model and output", output(f"MODEL with {SUFFIX}"), FORCE, QUIET)
@group("What to prune", of(PruneOptions))
def prune(model: Path, output: Path | None, force: bool, quiet: bool, **settings: Any) -> None:
    """Zero the smallest weights of MODEL and repair nothing."""
    options = record(PruneOptions, settings)
    target = output or model.with_suffix(SUFFIX)
    model_file.check_target(target, model, force)
    loaded = model_file.load(model, in_place=True)
    pruned = prune_model(loaded.proto, options)
    found = inspect(pruned)
    save(pruned, target, loaded.external, force)
    out = Terminal(quiet=quiet)
    if options.narrows:
        before = inspect(loaded.proto)
        out.print(f"{found.weights:,} of {before.weights:,} weights are left → {target}")
        return
    out.print(f"{found.zeros:,} of {found.weights:,} weights are zero → {target}")

"""``asr-onnx prune``: zero weights and repair nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr_onnx.cli.options import FORCE, MODEL, QUIET, command, group, of, output, record
from asr_onnx.cli.terminal import Terminal
from asr_onnx.graph import model_file
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
    loaded = model_file.load(model)
    pruned = prune_model(loaded.proto, options)
    model_file.save(pruned, target, loaded.external)
    found = inspect(pruned)
    Terminal(quiet=quiet).print(f"{found.zeros:,} of {found.weights:,} weights are zero → {target}")

"""``asr-onnx compact``: remove what contributes nothing, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr_onnx.cli.options import FORCE, MODEL, QUIET, command, group, of, output, record
from asr_onnx.cli.terminal import Terminal
from asr_onnx.data.source import CalibrationOptions, ImageOptions, open_data
from asr_onnx.graph import model_file
from asr_onnx.graph.saving import save
from asr_onnx.machine import Execution
from asr_onnx.pipeline import compact as compact_model
from asr_onnx.reports import compact_tables

SUFFIX = ".compact.onnx"


@command()
@MODEL
@group("Model and output", output(f"MODEL with {SUFFIX}"), FORCE, QUIET)
@group(
    "Data",
    of(
        CalibrationOptions,
        "calib",
        "batch_size",
        "data_loader_script",
        "load_inputs",
        "input_shapes",
        calib="Samples to check the result on, as for repair.  [default: noise]",
    ),
)
@group("Preprocessing", of(ImageOptions))
@group("Machine", of(Execution, "providers"))
def compact(model: Path, output: Path | None, force: bool, quiet: bool, **settings: Any) -> None:
    """Remove the channels of MODEL that contribute nothing, and change none of its outputs.

    These are channels that no weight reads, and channels that no weight makes: their constants go
    into the biases of what reads them.  The model is run before and after, and has to do the same.
    """
    calibration = record(CalibrationOptions, settings, holdout=0.0)
    target = output or model.with_suffix(SUFFIX)
    model_file.check_target(target, model, force)
    loaded = model_file.load(model, in_place=True)
    given = any(settings[name] for name in ("calib", "data_loader_script", "load_inputs"))
    found = compact_model(
        loaded.proto,
        open_data(loaded.proto, model, calibration).batches if given else None,
        input_shapes=calibration.shapes,
        execution=record(Execution, settings),
    )
    save(found.model, target, loaded.external, force)
    out = Terminal(quiet=quiet)
    for line in compact_tables.summary(found, target):
        out.say(line)
    if found.widths:
        out.print(compact_tables.table(found))

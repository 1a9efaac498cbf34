"""``asr-onnx quantize``: integers for weights and activations, and repair what that broke."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr_onnx.cli.options import (
    FILE,
    FORCE,
    KEEP_REJECTED,
    MODEL,
    QUIET,
    REPORT,
    VERBOSE,
    command,
    group,
    of,
    option,
    output,
)
from asr_onnx.cli.request import carry_out, parse
from asr_onnx.data.source import CalibrationOptions, ImageOptions, LabelOptions
from asr_onnx.evaluation.figures import Figures
from asr_onnx.evaluation.gates import Gates
from asr_onnx.machine import Execution
from asr_onnx.options import INT8, RepairOptions

SUFFIX = ".int8.onnx"


@command(repeats=True)
@MODEL
@group(
    "Most used",
    of(CalibrationOptions, "calib"),
    of(RepairOptions, "engine"),
    option(
        "--dense",
        type=FILE,
        help="The model that MODEL was before it was pruned: what to be like.  [default: MODEL]",
    ),
    output(f"MODEL with {SUFFIX}"),
)
@group("Model and output", REPORT, KEEP_REJECTED, FORCE, QUIET, VERBOSE)
@group(
    "Data",
    of(CalibrationOptions, "num_samples", "batch_size", "holdout", "seed"),
    of(CalibrationOptions, "data_loader_script", "load_inputs", "input_shapes"),
)
@group("Preprocessing", of(ImageOptions))
@group(
    "How to quantize",
    of(
        RepairOptions,
        "ranges",
        "recipe",
        "exclude",
        recipe="How to repair: asr scales channels, refit re-fits the weights, auto: what is good "
        "enough.  [default: auto]",
        exclude="Leave weights or nodes that match in float32, and unrepaired.",
    ),
)
@group("Quality gates", of(Gates), of(Figures), of(LabelOptions))
@group("Machine", of(Execution))
def quantize(model: Path, dense: Path | None, quiet: bool, verbose: bool, **settings: Any) -> None:
    """Write MODEL in int8, in pairs of QuantizeLinear and DequantizeLinear, and repair it.

    Its zeros stay zeros, so what is pruned stays pruned, 2:4 included.  BatchNormalization is
    folded.  Exit code 3 as for repair.
    """
    request = parse(model, dense=dense or model, suffix=SUFFIX, precision=INT8, **settings)
    carry_out(request, quiet, verbose)

"""``asr-onnx repair``: prune, and repair what that broke."""

from __future__ import annotations

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
from asr_onnx.options import MACS, SPARSITY, RepairOptions
from asr_onnx.sweeps.automatic import AutoOptions

SUFFIX = ".sparse.onnx"


@command(repeats=True)
@MODEL
@group(
    "Most used",
    of(CalibrationOptions, "calib"),
    of(
        RepairOptions,
        "sparsity",
        "pattern",
        "macs",
        "recipe",
        sparsity="Share of the weights to zero, 0.8 or 80%; with --pattern N:M layers that lose "
        "most by it stay dense; auto: the largest that passes the quality gates.  "
        f"[default: {SPARSITY:g}, or all that the pattern can]",
        macs="Share of the multiply-accumulates that stays with --pattern channel, 0.5 or 50%, "
        "instead of --sparsity; auto: the least that passes the quality gates.  "
        f"[default: {MACS:g}]",
    ),
    output(f"MODEL with {SUFFIX}"),
)
@group(
    "Model and output",
    REPORT,
    KEEP_REJECTED,
    FORCE,
    QUIET,
    VERBOSE,
)
@group(
    "Data",
    of(CalibrationOptions, "num_samples", "batch_size", "holdout", "seed"),
    of(CalibrationOptions, "data_loader_script", "load_inputs", "input_shapes"),
)
@group("Preprocessing", of(ImageOptions))
@group(
    "What to prune",
    option(
        "--dense",
        type=FILE,
        help="MODEL is pruned already: its zeros are the mask, and this is the model it came from.",
    ),
    of(RepairOptions, "criterion", "allocation", "ops", "include", "exclude", "row_scale"),
    of(RepairOptions, "only_eligible", "channel_multiple"),
)
@group(
    "How to repair",
    of(RepairOptions, "reconstruct", "method", "prior", "one_shot", "keep_first"),
    of(RepairOptions, "bn_stats", "bn_momentum", "bn_batch_size", "bn_batches"),
)
@group("Precision", of(RepairOptions, "precision", "float32_io", "engine", "ranges"))
@group("Quality gates", of(Gates), of(Figures), of(LabelOptions))
@group("Automatic amounts", of(AutoOptions))
@group("Machine", of(Execution))
def repair(quiet: bool, verbose: bool, **settings: Any) -> None:
    """Zero the smallest weights of MODEL, then repair what that broke on calibration data.

    Exit code 3: the model is rejected, as it fails a quality gate (accuracies are of --data, all
    others of the calibration samples held out), or is worse than plain pruning.  Reports are
    written, the model is not.  --force lets pass what is worse than plain pruning, but no gate.
    """
    carry_out(parse(**settings, suffix=SUFFIX), quiet, verbose)

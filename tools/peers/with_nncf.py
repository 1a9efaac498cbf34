"""NNCF's post-training quantization of ONNX models, with its two bias corrections."""

from __future__ import annotations

from pathlib import Path

import common
import nncf
import onnx


def run(model: Path, calibration: Path, output: Path, cell: str, variant: str) -> None:
    """Write INT8; ``variant`` is "bias correction, 7 bits" or 8, with "fast " or without."""
    data = common.batches(calibration, 1)
    overflow = nncf.OverflowFix.ENABLE if "7 bits" in variant else nncf.OverflowFix.FIRST_LAYER
    quantized = nncf.quantize(
        onnx.load(model),
        nncf.Dataset(data),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(data),
        fast_bias_correction=variant.startswith("fast"),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )
    onnx.save(quantized, output)


if __name__ == "__main__":
    common.main(run)

"""ONNX Runtime's static quantizer, as its documentation advises: pre-processed, QDQ, per channel.

Seven bits for weights (``reduce_range``) where the CPU has no VNNI instructions.
"""

from __future__ import annotations

from pathlib import Path

import common
from onnxruntime.quantization import CalibrationMethod, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


def run(model: Path, calibration: Path, output: Path, cell: str, variant: str) -> None:
    """Write INT8 with the calibrator that ``variant`` names first."""
    method, _, bits = variant.partition(", ")
    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    quantize_static(
        str(prepared),
        str(output),
        common.Reader(common.batches(calibration)),
        per_channel=True,
        reduce_range=bits == "7 bits",
        calibrate_method=CalibrationMethod[method],
    )
    prepared.unlink()


if __name__ == "__main__":
    common.main(run)

"""onnx-neural-compressor's static quantizer: QDQ, per channel."""

from __future__ import annotations

from pathlib import Path

import common
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import CalibrationMethod, QuantFormat, config, quantize


class Reader(common.Reader, data_reader.CalibrationDataReader):
    """The same data under the class it asks for."""


def run(model: Path, calibration: Path, output: Path, cell: str, variant: str) -> None:
    """Write INT8 with the calibrator that ``variant`` names first."""
    method, _, bits = variant.partition(", ")
    data = common.batches(calibration)
    how = config.StaticQuantConfig(
        Reader(data),
        calibrate_method=CalibrationMethod[method],
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=bits == "7 bits",
        calibration_sampling_size=sum(len(next(iter(b.values()))) for b in data),
    )
    quantize(str(model), str(output), how)


if __name__ == "__main__":
    common.main(run)

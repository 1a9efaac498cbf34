"""Prune an exported ONNX CNN and repair its accuracy without training."""

__version__ = "0.1.0"

from asr_onnx.calibration import Calibration, as_calibration
from asr_onnx.compare import Comparison, compare
from asr_onnx.errors import (
    AsrError,
    CalibrationError,
    ModelError,
    ProviderError,
    QualityError,
    UsageError,
)
from asr_onnx.gates import Gates
from asr_onnx.inspection import Inspection, inspect
from asr_onnx.model import load, save
from asr_onnx.options import PruneOptions, RepairOptions
from asr_onnx.preprocess import Preprocess
from asr_onnx.pruning import prune
from asr_onnx.repair import repair, repair_all
from asr_onnx.result import RepairResult, SiteReport
from asr_onnx.sweep import sweep

__all__ = [
    "AsrError",
    "Calibration",
    "CalibrationError",
    "Comparison",
    "Gates",
    "Inspection",
    "ModelError",
    "Preprocess",
    "ProviderError",
    "PruneOptions",
    "QualityError",
    "RepairOptions",
    "RepairResult",
    "SiteReport",
    "UsageError",
    "as_calibration",
    "compare",
    "inspect",
    "load",
    "prune",
    "repair",
    "repair_all",
    "save",
    "sweep",
]

"""Prune an exported ONNX CNN and repair its accuracy without training.

Names are loaded when they are used (PEP 562): importing the package loads no other package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asr_onnx.data.batches import Calibration as Calibration
    from asr_onnx.data.batches import as_calibration as as_calibration
    from asr_onnx.data.preprocess import Preprocess as Preprocess
    from asr_onnx.errors import AsrError as AsrError
    from asr_onnx.errors import CalibrationError as CalibrationError
    from asr_onnx.errors import ModelError as ModelError
    from asr_onnx.errors import ProviderError as ProviderError
    from asr_onnx.errors import QualityError as QualityError
    from asr_onnx.errors import UsageError as UsageError
    from asr_onnx.evaluation.comparison import Comparison as Comparison
    from asr_onnx.evaluation.comparison import compare as compare
    from asr_onnx.evaluation.gates import Failure as Failure
    from asr_onnx.evaluation.gates import Gates as Gates
    from asr_onnx.graph.model_file import load as load
    from asr_onnx.graph.model_file import save as save
    from asr_onnx.options import PruneOptions as PruneOptions
    from asr_onnx.options import RepairOptions as RepairOptions
    from asr_onnx.options import recipe as recipe
    from asr_onnx.pipeline import repair as repair
    from asr_onnx.pipeline import repair_all as repair_all
    from asr_onnx.pruning.choose import prune as prune
    from asr_onnx.pruning.inspection import Inspection as Inspection
    from asr_onnx.pruning.inspection import inspect as inspect
    from asr_onnx.repairing.result import RepairResult as RepairResult
    from asr_onnx.repairing.result import SiteReport as SiteReport
    from asr_onnx.sweeps.grid import sweep as sweep

_MODULES = {
    "data.batches": ("Calibration", "as_calibration"),
    "evaluation.comparison": ("Comparison", "compare"),
    "errors": (
        "AsrError", "CalibrationError", "ModelError", "ProviderError", "QualityError", "UsageError",
    ),
    "evaluation.gates": ("Failure", "Gates"),
    "pruning.inspection": ("Inspection", "inspect"),
    "graph.model_file": ("load", "save"),
    "options": ("PruneOptions", "RepairOptions", "recipe"),
    "data.preprocess": ("Preprocess",),
    "pruning.choose": ("prune",),
    "pipeline": ("repair", "repair_all"),
    "repairing.result": ("RepairResult", "SiteReport"),
    "sweeps.grid": ("sweep",),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'asr_onnx' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"asr_onnx.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

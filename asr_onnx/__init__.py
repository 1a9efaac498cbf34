"""Prune an exported ONNX CNN and repair its accuracy without training.

Names are loaded when they are used (PEP 562): importing the package loads no other package.  That
of ONNX Runtime is thus imported after this file, which keeps it from writing into the home folder.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asr_onnx.displayed import VIEWS
from asr_onnx.provenance import __version__ as __version__

if TYPE_CHECKING:
    from asr_onnx.data.batches import Batches as Batches
    from asr_onnx.data.batches import as_batches as as_batches
    from asr_onnx.data.preprocess import Preprocess as Preprocess
    from asr_onnx.errors import AsrError as AsrError
    from asr_onnx.errors import CalibrationError as CalibrationError
    from asr_onnx.errors import MissingError as MissingError
    from asr_onnx.errors import ModelError as ModelError
    from asr_onnx.errors import OutputTakenError as OutputTakenError
    from asr_onnx.errors import ProviderError as ProviderError
    from asr_onnx.errors import QualityError as QualityError
    from asr_onnx.errors import UsageError as UsageError
    from asr_onnx.evaluation.comparison import CompareOptions as CompareOptions
    from asr_onnx.evaluation.comparison import Comparison as Comparison
    from asr_onnx.evaluation.comparison import compare as compare
    from asr_onnx.evaluation.figures import Figures as Figures
    from asr_onnx.evaluation.gates import Failure as Failure
    from asr_onnx.evaluation.gates import Gates as Gates
    from asr_onnx.graph.model_file import load as load
    from asr_onnx.graph.saving import save as save
    from asr_onnx.machine import Execution as Execution
    from asr_onnx.options import PruneOptions as PruneOptions
    from asr_onnx.options import RepairOptions as RepairOptions
    from asr_onnx.options import recipe as recipe
    from asr_onnx.pipeline import compact as compact
    from asr_onnx.pipeline import inspect as inspect
    from asr_onnx.pipeline import prune as prune
    from asr_onnx.pipeline import quantize as quantize
    from asr_onnx.pipeline import repair as repair
    from asr_onnx.pipeline import repair_all as repair_all
    from asr_onnx.pruning.inspection import Inspection as Inspection
    from asr_onnx.pruning.mask_check import MaskCheck as MaskCheck
    from asr_onnx.pruning.mask_check import check as check
    from asr_onnx.repairing.compacting import Compacted as Compacted
    from asr_onnx.repairing.result import RepairResult as RepairResult
    from asr_onnx.repairing.result import SiteReport as SiteReport
    from asr_onnx.repairing.trials import AutoResult as AutoResult
    from asr_onnx.reports.progress import progress_bar as progress_bar
    from asr_onnx.sweeps.automatic import repair_auto as repair_auto
    from asr_onnx.sweeps.grid import sweep as sweep
    from asr_onnx.sweeps.results import SweepResult as SweepResult

# Its telemetry would write a device id and a data base of events there, and send them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "data.batches": ("Batches", "as_batches"),
    "data.preprocess": ("Preprocess",),
    "errors": (
        "AsrError",
        "CalibrationError",
        "MissingError",
        "ModelError",
        "OutputTakenError",
        "ProviderError",
        "QualityError",
        "UsageError",
    ),
    "evaluation.comparison": ("CompareOptions", "Comparison", "compare"),
    "evaluation.figures": ("Figures",),
    "evaluation.gates": ("Failure", "Gates"),
    "graph.model_file": ("load",),
    "graph.saving": ("save",),
    "machine": ("Execution",),
    "options": ("PruneOptions", "RepairOptions", "recipe"),
    "pipeline": ("compact", "inspect", "prune", "quantize", "repair", "repair_all"),
    "pruning.inspection": ("Inspection",),
    "pruning.mask_check": ("MaskCheck", "check"),
    "repairing.compacting": ("Compacted",),
    "repairing.result": ("RepairResult", "SiteReport"),
    "repairing.trials": ("AutoResult",),
    "reports.progress": ("progress_bar",),
    "sweeps.automatic": ("repair_auto",),
    "sweeps.grid": ("sweep",),
    "sweeps.results": ("SweepResult",),
}
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


def _later(module: str, function: str) -> Callable[[object], Any]:
    """A function that is imported when it is called."""
    return lambda result: getattr(importlib.import_module(f"asr_onnx.{module}"), function)(result)


# What shows a result, which lies below it.
VIEWS.update(html=_later("reports.display", "html"), dataframe=_later("reports.frames", "frame"))

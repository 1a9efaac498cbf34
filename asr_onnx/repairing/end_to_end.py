"""What a change of some layers does to the outputs of the whole network, on a few samples."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import onnx

from asr_onnx.arrays import Outputs
from asr_onnx.data.batches import Batches
from asr_onnx.evaluation.match import compare_outputs
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.records import Patch

SAMPLES = 64  # held out: enough to tell what costs much from what costs little


class EndToEnd:
    """The dense network on a few of the samples held out, and patched ones held against it."""

    def __init__(self, dense: onnx.ModelProto, calibration: Batches, device: Device) -> None:
        self._dense, self._calibration, self._device = dense, calibration, device
        before = accumulate((len(b.samples) for b in calibration.checked), initial=0)
        both = zip(before, calibration.checked, strict=False)
        self._batches = [batch for seen, batch in both if seen < SAMPLES]
        self._sizes = [len(b.samples) for b in self._batches]
        self._outputs = self._run(dense)

    def error(self, patch: Patch) -> float:
        """Squared error of the patched network's outputs, relative to the dense ones' variance.

        The mean of all outputs that can be compared; infinite where there is none, or NaN in it.
        """
        outputs = self._run(apply(self._dense, patch))
        matches = compare_outputs(self._outputs, outputs, self._sizes).values()
        errors = [m.relative_error**2 for m in matches if not math.isnan(m.relative_error)]
        return float(np.mean(errors)) if errors else math.inf

    def _run(self, model: onnx.ModelProto) -> list[Outputs]:
        runner = Runner(model, self._device)
        return [runner.run(self._calibration.feeds(b)) for b in self._batches]

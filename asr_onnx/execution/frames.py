"""The way from a site's output to the sum behind it, in the dense and the repaired stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import AnyArray, Float32Array
from asr_onnx.execution.chunks import Of, Part
from asr_onnx.execution.stream import Stream
from asr_onnx.graph.records import Site
from asr_onnx.maths.targets import Frame


@dataclass(frozen=True)
class Frames:
    """Frames of ``site``; ``batch`` is one in which to see whether the shortcut is there."""

    dense: Stream
    repaired: Stream
    site: Site
    batch: int

    def __call__(self, of: Of, rows: Callable[[AnyArray], Float32Array]) -> Frame:
        """For some samples, at the positions that ``rows`` takes."""
        gain, offset = (v.astype(np.float32) for v in self.site.behind)
        if not self._adds_shortcut:
            return Frame(gain, offset[None], offset[None])
        dense, repaired = (
            rows(of(self._shortcut(stream))).astype(np.float32, copy=False) + offset
            for stream in (self.dense, self.repaired)
        )
        return Frame(gain, dense, repaired)

    def _shortcut(self, stream: Stream) -> Part:
        name = self.site.shortcut
        assert name
        return lambda batch, samples: stream.part(batch, name, samples)

    @property
    def _adds_shortcut(self) -> bool:
        """Whether the output is added to something that is computed already and not broadcast."""
        name = self.site.shortcut
        if name is None:
            return False
        wanted = self.dense.shape(self.batch, self.site.output)
        return all(s.shape(self.batch, name) == wanted for s in (self.dense, self.repaired))

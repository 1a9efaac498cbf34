"""What engines want of a quantised model: one record for each (docs/engines.md has the sources)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr_onnx.maths.clipping import Grid


@dataclass(frozen=True)
class Target:
    """``activations``: the integers that stand for them; ``limit``: the largest of a weight.

    Weights are symmetric int8, a scale for each output channel; biases stay in float32.
    """

    activations: Grid
    limit: int

    @property
    def weight_type(self) -> np.dtype[np.generic]:
        """The narrowest signed integers that hold the weights."""
        return np.min_scalar_type(-self.limit)

    @property
    def activation_type(self) -> np.dtype[np.generic]:
        """The narrowest integers that hold the activations."""
        grid = self.activations
        return np.min_scalar_type(grid.low if grid.low < 0 else grid.high)


TARGETS = {
    # TensorRT knows symmetric int8 only, and refuses a zero point that is not zero.
    "tensorrt": Target(Grid(-127, 127, symmetric=True), 127),
    # Without VNNI, x64 adds two products of uint8 and int8 in 16 bits: 2 * 255 * 64 still fits.
    "onnxruntime": Target(Grid(0, 255, symmetric=False), 64),
}

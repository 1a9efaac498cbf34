"""What a model wants to be fed: name, element type and shape of each graph input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.errors import ModelError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class ModelInput:
    """A graph input; ``shape`` has the batch axis first and ``None`` for what may vary."""

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def accepts(self, sample: Sequence[int]) -> bool:
        """Whether one sample (no batch axis) may have this shape."""
        wanted = self.shape[1:]
        return len(sample) == len(wanted) and all(
            want in (None, have) for want, have in zip(wanted, sample, strict=True)
        )

    def __str__(self) -> str:
        return f"input '{self.name}' ({self.dtype} {shape_text(self.shape)})"


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape for people, ``[?, 3, 32, 32]``."""
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def model_inputs(proto: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs a caller has to feed, in order; initializers listed as inputs do not count.

    Raises ``ModelError`` when there are none, or one is no tensor of numbers with a batch axis.
    """
    constant = {t.name for t in proto.graph.initializer}
    constant |= {t.values.name for t in proto.graph.sparse_initializer}
    found = tuple(_model_input(v) for v in proto.graph.input if v.name not in constant)
    if not found:
        raise ModelError("the model has no inputs: there is nothing to feed calibration data to")
    return found


def _model_input(value: onnx.ValueInfoProto) -> ModelInput:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.elem_type:
        raise ModelError(f"input '{value.name}' is not a tensor: only tensor inputs can be fed")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind not in "fiubc":
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelError(f"input '{value.name}' is {kind}, which NumPy arrays cannot feed")
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise ModelError(
            f"input '{value.name}' has no known rank or no batch axis: "
            "export the model with the input's shape"
        )
    # Exporters write 0 or -1, too, for a dimension that may vary.
    shape = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
    return ModelInput(value.name, dtype, shape)


def fixed_batch(inputs: Sequence[ModelInput]) -> int | None:
    """The batch size the model insists on, or ``None``; raises ``ModelError`` on two of them."""
    fixed = {i.shape[0]: i.name for i in inputs if i.shape[0] is not None}
    if len(fixed) > 1:
        texts = " and ".join(f"{size} ('{name}')" for size, name in fixed.items())
        raise ModelError(f"inputs fix different batch sizes, {texts}: export with a dynamic batch")
    return next(iter(fixed), None)

"""What a model wants to be fed: name, element type and shape of each graph input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from asr_onnx.arrays import Feeds
from asr_onnx.errors import ModelError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class ModelInput:
    """A graph input; ``shape`` has ``None`` for what may vary.

    ``batch_axis`` is where samples lie: first, but for states (layers, N, width); ``None`` for an
    input that is the same for all samples of a batch, as a sampling rate is.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape
    batch_axis: int | None = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    @property
    def sample_shape(self) -> Shape:
        """The shape of one sample, without batch axis."""
        if self.batch_axis is None:
            return self.shape
        return self.shape[: self.batch_axis] + self.shape[self.batch_axis + 1 :]

    @property
    def batch(self) -> int | None:
        """The number of samples the input insists on; ``None`` if it does not."""
        return None if self.batch_axis is None else self.shape[self.batch_axis]

    def accepts(self, sample: Sequence[int]) -> bool:
        """Whether one sample (no batch axis) may have this shape."""
        wanted = self.sample_shape
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

    The batch lies along the first axis of the first input that has one, and in others along an axis
    of the same name or size; see ``_batch_axis``.
    Raises ``ModelError`` when there are none, or one is no tensor of numbers of known rank.
    """
    constant = {t.name for t in proto.graph.initializer}
    constant |= {t.values.name for t in proto.graph.sparse_initializer}
    values = [v for v in proto.graph.input if v.name not in constant]
    if not values:
        raise ModelError("the model has no inputs: there is nothing to feed calibration data to")
    found = [_model_input(v) for v in values]
    names = [[d.dim_param for d in v.type.tensor_type.shape.dim] for v in values]
    first = next((n for n, i in enumerate(found) if i.shape), None)
    if first is None:
        raise ModelError("no input of the model has a batch axis: there are no samples to feed")
    name, size = names[first][0], found[first].shape[0]
    return tuple(
        replace(i, batch_axis=0 if n == first else _batch_axis(i.shape, names[n], name, size))
        for n, i in enumerate(found)
    )


def _batch_axis(shape: Shape, names: Sequence[str], name: str, size: int | None) -> int | None:
    """Where the batch lies in an input, if that of the first has that ``name`` and ``size``.

    An axis of the same name, or else of the first two one of the same size; a first axis of 1 is
    the batch, too.  States are (layers, N, width), so that a first axis of another size is none.
    """
    if name and name in names:
        return names.index(name)
    for axis, have in enumerate(shape[:2]):
        if have == size or (have == 1 and size is None):
            return axis
    return None


def _model_input(value: onnx.ValueInfoProto) -> ModelInput:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.elem_type:
        raise ModelError(f"input '{value.name}' is not a tensor: only tensor inputs can be fed")
    if tensor.elem_type not in onnx.TensorProto.DataType.values():
        raise ModelError(
            f"input '{value.name}' is of type {tensor.elem_type}, which the onnx installed here "
            "does not know: update onnx, or export the model again"
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind not in "fiubc":
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelError(
            f"input '{value.name}' is {kind}, which NumPy arrays cannot feed: "
            "export the model with inputs of float32"
        )
    if not tensor.HasField("shape"):
        raise ModelError(
            f"input '{value.name}' has no known rank: export the model with the input's shape"
        )
    # Exporters write 0 or -1, too, for a dimension that may vary.
    shape = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
    return ModelInput(value.name, dtype, shape)


def count_samples(feeds: Feeds, inputs: Sequence[ModelInput]) -> int:
    """The number of samples in a batch's arrays."""
    along = next(i for i in inputs if i.batch_axis is not None)
    return int(feeds[along.name].shape[along.batch_axis or 0])


def samples_in(
    proto: onnx.ModelProto, sizes: Mapping[str, Sequence[int | None]] | None = None
) -> int:
    """How many samples inputs of the ``sizes`` given by name hold; else the model's own, or one.

    Raises ``ModelError`` as ``model_inputs`` does.
    """
    batches = (
        (sizes or {}).get(i.name, i.shape)[i.batch_axis]
        for i in model_inputs(proto)
        if i.batch_axis is not None
    )
    return next(batches, None) or 1


def fixed_batch(inputs: Sequence[ModelInput]) -> int | None:
    """The batch size the model insists on, or ``None``; raises ``ModelError`` on two of them."""
    fixed = {i.batch: i.name for i in inputs if i.batch is not None}
    if len(fixed) > 1:
        texts = " and ".join(f"{size} ('{name}')" for size, name in fixed.items())
        raise ModelError(f"inputs fix different batch sizes, {texts}: export with a dynamic batch")
    return next(iter(fixed), None)

"""Where the values of tensors lie: in the model, in its data file, or in a temporary file.

A tensor that is not in memory is external to its ``ModelProto``, with the whole path as location,
so that a model says by itself where its weights are.  They are read where they lie, through a map
that is opened anew each time: what was read does not stay in memory.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from asr_onnx.arrays import AnyArray
from asr_onnx.errors import ModelError
from asr_onnx.files import staging
from asr_onnx.graph.stored import nbytes

LARGE = 1 << 16  # bytes; smaller tensors are always in memory, where shape inference sees them
VALUE_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "double_data",
    "external_data",
    "data_location",
)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
ROOT = Path.cwd().anchor  # of the file system


@dataclass(frozen=True)
class InFile:
    """An array in a file, from byte ``offset`` on."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @classmethod
    def of(cls, tensor: TensorProto) -> InFile:
        """Where an external tensor lies; raises ``ModelError`` when that file is gone."""
        info = external_data_helper.ExternalDataInfo(tensor)
        if not Path(info.location).exists():  # replaced with the model that was read, for example
            raise ModelError(f"the weights in '{info.location}' are gone: load the model again")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return cls(info.location, info.offset or 0, tuple(tensor.dims), dtype)

    def open(self) -> AnyArray:
        """The array, read-only; its memory is the file's."""
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return np.asarray(mapped)

    def refer(self, tensor: TensorProto) -> None:
        """Let ``tensor``, of the same shape and type, lie here."""
        refer(tensor, self.path, self.offset)

    @property
    def below_root(self) -> str | None:
        """The path from ``ROOT`` on, as ONNX Runtime takes it; ``None`` on another drive."""
        path = Path(self.path)
        return path.relative_to(ROOT).as_posix() if path.anchor == ROOT else None


Held = AnyArray | InFile  # an array in memory, or where it lies


def opened(held: Held) -> AnyArray:
    """The array."""
    return held.open() if isinstance(held, InFile) else held


def refer(tensor: TensorProto, location: str, offset: int) -> None:
    """Let a tensor lie in a file instead of wherever its values were."""
    for field in VALUE_FIELDS:
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    length = nbytes(tensor)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def is_large(tensor: TensorProto) -> bool:
    """Whether a tensor is worth being used where it lies, and holds no shape."""
    return tensor.data_type in _FLOATS and nbytes(tensor) >= LARGE


def is_in_file(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def held(tensor: TensorProto) -> Held:
    """The tensor's value, or where it lies."""
    return InFile.of(tensor) if is_in_file(tensor) else numpy_helper.to_array(tensor)


@cache
def scratch() -> Scratch:
    """Where new weights of models that are not in memory lie until the process ends."""
    made = Scratch()
    atexit.register(made.close)
    return made


class Scratch:
    """Arrays in a temporary file, until ``close``; that of a killed process goes with the next."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(staging(Path(tempfile.gettempdir()).resolve()))
        path = folder / "weights.bin"
        self._file: Any = path.open("w+b")
        self._path = str(path)

    def close(self) -> None:
        """Forget all arrays."""
        self._file.close()
        self._stack.close()

    def put(self, array: AnyArray) -> InFile:
        """Write an array to the file; raises ``ModelError`` when there is no room."""
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            self._file.flush()
            os.utime(Path(self._path).parent)  # that it is used: see ``files``
        except OSError as error:
            raise ModelError(
                f"weights cannot be kept in '{tempfile.gettempdir()}' ({error.strerror}): set "
                "TMPDIR to a folder with room for the model"
            ) from None
        return InFile(self._path, offset, array.shape, array.dtype)

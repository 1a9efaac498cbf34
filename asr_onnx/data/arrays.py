"""Calibration samples from arrays: in memory, .npy and .npz files.  Nothing is preprocessed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.data.npy import from_npz
from asr_onnx.errors import CalibrationError
from asr_onnx.graph.inputs import ModelInput, shape_text
from asr_onnx.limits import check_file

Arrays = Mapping[str, AnyArray]


@dataclass(frozen=True)
class Part:
    """Arrays by input name; ``count`` samples lie along their first axis.

    ``count`` is ``None`` when the arrays are one sample and have no batch axis.  Inputs without one
    are the same for all samples.
    """

    label: str
    read: Callable[[], Arrays]
    count: int | None


class ArraySamples:
    """Samples lying in arrays; each is cast to the model's element type and must be finite.

    Float arrays feed float inputs and integer arrays integer inputs that can hold their values.
    """

    def __init__(self, parts: Sequence[Part], inputs: Sequence[ModelInput]) -> None:
        self._parts = tuple(parts)
        self._inputs = tuple(inputs)
        self._ends = list(accumulate(1 if p.count is None else p.count for p in self._parts))
        if not len(self):
            labels = ", ".join(f"'{p.label}'" for p in self._parts[:3])
            raise CalibrationError(f"{labels or 'the data'} holds no samples to calibrate on")

    @classmethod
    def from_data(
        cls, data: Any, inputs: Sequence[ModelInput], label: str = "array"
    ) -> ArraySamples:
        """Of an array (for the only input) or a dict of arrays by input name, samples first."""
        return cls([_kept(label, data, inputs)], inputs)

    @classmethod
    def from_batches(cls, batches: Iterable[Any], inputs: Sequence[ModelInput]) -> ArraySamples:
        """Of any number of dicts of arrays by input name, each with a batch axis first."""
        parts = []
        for number, feeds in enumerate(batches):
            if not isinstance(feeds, Mapping):
                raise CalibrationError(
                    f"batch {number} is a {type(feeds).__name__}: give dicts of input name -> array"
                )
            # A generator may fill the same array again and again.
            copy = None if isinstance(batches, Sequence) else True
            arrays = {k: np.array(v, copy=copy) for k, v in feeds.items()}
            parts.append(_kept(f"batch {number}", arrays, inputs))
        return cls(parts, inputs)

    @classmethod
    def from_files(
        cls, paths: Sequence[Path], inputs: Sequence[ModelInput], root: Path | None = None
    ) -> ArraySamples:
        """Of .npy and .npz files; under a ``root`` folder a file may also be one sample.

        .npy files are mapped when a sample is asked for; batches in .npz are kept in memory.
        Raises ``CalibrationError`` naming the file when it cannot be read or does not fit.
        """
        return cls([_file_part(p, inputs, root) for p in paths], inputs)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, AnyArray]:
        """Sample ``index`` by input name, without batch axis; ``CalibrationError`` if unusable."""
        part, row = self._locate(index)
        arrays = part.read()
        where = f"'{part.label}'" if row is None else f"sample {row} of '{part.label}'"
        return {i.name: _cast(_row(arrays[i.name], i, row), i, where) for i in self._inputs}

    def name(self, index: int) -> str:
        """Where the sample lies: ``folder/file.npy[3]``."""
        part, row = self._locate(index)
        return part.label if row is None else f"{part.label}[{row}]"

    def _locate(self, index: int) -> tuple[Part, int | None]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        part = self._parts[number]
        start = self._ends[number - 1] if number else 0
        return part, None if part.count is None else index - start


def load_array_file(path: Path) -> AnyArray | dict[str, AnyArray]:
    """A .npy as a read-only map of the file, a .npz as a dict; never unpickles anything.

    Raises ``CalibrationError`` naming the file.
    """
    check_file(path, f"array file '{path}'", CalibrationError)
    try:
        if path.suffix.lower() == ".npz":
            with path.open("rb") as file:
                return from_npz(file)
        # np.load would take a .npz or a pickle by this name; this takes a .npy and nothing else.
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged file trips NumPy and zipfile in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise CalibrationError(
            f"array file '{path}' cannot be read ({reason}): write it from arrays of numbers with "
            "np.save or np.savez"
        ) from None


def _file_part(path: Path, inputs: Sequence[ModelInput], root: Path | None) -> Part:
    label = path.relative_to(root).as_posix() if root else str(path)
    arrays = _by_input(str(path), load_array_file(path), inputs)
    count = _count(str(path), arrays, inputs, single=root is not None)
    if count is not None and path.suffix.lower() == ".npz":
        return Part(label, lambda: arrays, count)
    # Thousands of files must not stay open, nor lie in memory.
    return Part(label, lambda: _by_input(str(path), load_array_file(path), inputs), count)


def _kept(label: str, data: Any, inputs: Sequence[ModelInput]) -> Part:
    arrays = _by_input(label, data, inputs)
    return Part(label, lambda: arrays, _count(label, arrays, inputs, single=False))


def _by_input(label: str, data: Any, inputs: Sequence[ModelInput]) -> Arrays:
    names = [i.name for i in inputs]
    if isinstance(data, Mapping) and len(data) == 1 and len(names) == 1:
        data = next(iter(data.values()))  # one array and one input: any key will do
    if isinstance(data, Mapping):
        if set(data) != set(names):
            raise CalibrationError(
                f"'{label}' has arrays {_quoted(data)}, but the model's inputs are "
                f"{_quoted(names)}: name one array after each"
            )
        return {n: np.asarray(data[n]) for n in names}
    if len(names) != 1:
        raise CalibrationError(
            f"'{label}' is one array, but the model has inputs {_quoted(names)}: "
            "give a .npz or a dict with an array for each"
        )
    return {names[0]: np.asarray(data)}


def _count(label: str, arrays: Arrays, inputs: Sequence[ModelInput], single: bool) -> int | None:
    """Number of samples, ``None`` for a lone one; raises ``CalibrationError`` for a misfit."""
    counts: set[int | None] = set()
    for i in inputs:
        array = arrays[i.name]
        _check_kind(label, array, i)
        axis = i.batch_axis
        lone = axis is None or (single and array.ndim == len(i.shape) - 1)
        shape = list(array.shape)
        many = None if lone or not 0 <= (axis or 0) < len(shape) else shape.pop(axis or 0)
        if not i.accepts(shape) or (many is None and not lone):
            wanted = [None if n == axis else size for n, size in enumerate(i.shape)]
            first = ", samples first" if axis == 0 else ""
            raise CalibrationError(
                f"'{label}' has shape {shape_text(array.shape)}, but input '{i.name}' takes "
                f"{shape_text(wanted)}{first}"
            )
        if axis is not None:
            counts.add(many)
    if len(counts) > 1:
        shapes = ", ".join(f"'{n}' {shape_text(a.shape)}" for n, a in arrays.items())
        raise CalibrationError(f"'{label}' has another number of samples per input: {shapes}")
    return counts.pop()


def _row(array: AnyArray, input: ModelInput, row: int | None) -> AnyArray:
    """One sample of an input's array, which is one if there is no ``row``."""
    if row is None or input.batch_axis is None:
        return array
    return array[(slice(None),) * input.batch_axis + (row,)]


def _check_kind(label: str, array: AnyArray, input: ModelInput) -> None:
    have, want = array.dtype.kind, input.dtype.kind
    if have == want or {have, want} == {"i", "u"}:
        return
    cure = "give an array of that kind"
    if want == "f" and have in "iu":
        cure = "arrays are fed as they are, so preprocess them to float or give image files"
    raise CalibrationError(f"'{label}' is {array.dtype}, but {input} is not: {cure}")


def _cast(value: AnyArray, input: ModelInput, where: str) -> AnyArray:
    with np.errstate(over="ignore"):
        result = np.array(value, input.dtype, order="C")
    if input.dtype.kind in "iu":
        fits = np.array_equal(result, value)
    else:
        fits = input.dtype.kind == "b" or bool(np.isfinite(result).all())
    if not fits:
        finite = input.dtype.kind in "iu" or np.isfinite(value).all()
        what = f"values that {input.dtype} cannot hold" if finite else "NaN or Inf"
        raise CalibrationError(f"{where} has {what} for input '{input.name}': remove or repair it")
    return result


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{n}'" for n in names)

"""Calibration data as re-iterable batches, a part of them held out from solving."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.foreign import DataReader, from_reader
from asr_onnx.data.openers import Samples, check_no_preprocess, open_samples, take
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput, fixed_batch, shape_text


@dataclass(frozen=True)
class Batch:
    """Number ``index``, made of ``samples`` (positions in the calibration's ``samples``)."""

    index: int
    samples: tuple[int, ...]
    held_out: bool


class Batches:
    """A seeded selection of samples in batches: those to solve on first, then those held out.

    ``holdout`` is the share held out, at least one sample unless it is 0 or there is only one.  A
    ``fixed_batch`` of the model overrides ``batch_size``, and then unfilled batches are dropped.
    Samples are read anew for each pass.

    Raises ``UsageError`` for invalid settings, ``CalibrationError`` for unusable data.
    """

    def __init__(
        self,
        samples: Samples,
        inputs: Sequence[ModelInput],
        batch_size: int = 32,
        num_samples: int = 512,
        seed: int = 0,
        holdout: float = 0.2,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not positive")
        if not 0 <= holdout < 1:
            raise UsageError(f"held-out share {holdout:g} is outside [0, 1)")
        self.samples = samples
        self.inputs = tuple(inputs)
        self.seed = seed
        self.holdout = holdout
        chosen = take(samples, num_samples, seed)
        if not chosen:
            raise CalibrationError("the calibration data holds no samples")
        self.fixed_batch = fixed_batch(self.inputs)
        self.batch_size = self.fixed_batch or batch_size
        self.batches = self._cut(chosen, full_only=self.fixed_batch is not None)
        self._checked(self.batches[0].samples[0])  # what does not fit at all is told at once

    @property
    def num_solve(self) -> int:
        """Number of samples in the batches to solve on."""
        return sum(len(b.samples) for b in self.batches if not b.held_out)

    @property
    def num_held_out(self) -> int:
        """Number of samples in the held-out batches."""
        return sum(len(b.samples) for b in self.batches if b.held_out)

    @property
    def checked(self) -> tuple[Batch, ...]:
        """The batches results are checked on: the held-out ones, or all when none is held out."""
        return tuple(b for b in self.batches if b.held_out) or self.batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, AnyArray]]:
        return (self.feeds(b) for b in self.batches)

    def feeds(self, batch: Batch) -> dict[str, AnyArray]:
        """The batch's arrays by input name, as the model takes them, contiguous and finite.

        Raises ``CalibrationError`` naming the sample that cannot be used.
        """
        first = self._checked(batch.samples[0])
        shapes = {name: array.shape for name, array in first.items()}
        stacked = {
            i.name: np.empty((len(batch.samples), *shapes[i.name]), i.dtype) for i in self.inputs
        }
        for row, index in enumerate(batch.samples):
            for name, array in (self._checked(index) if row else first).items():
                if array.shape != shapes[name]:
                    raise self._misfit(batch.samples[0], shapes[name], index, array.shape, name)
                stacked[name][row] = array
        return {i.name: self._as_fed(stacked[i.name], i, batch) for i in self.inputs}

    def one(self) -> Batch:
        """The first sample by itself, or the first batch where the model fixes its size."""
        first = self.batches[0]
        return replace(first, samples=first.samples[:1]) if self.fixed_batch is None else first

    def _as_fed(self, stacked: AnyArray, input: ModelInput, batch: Batch) -> AnyArray:
        """Samples (B, ...) of an input put where its batch lies."""
        if input.batch_axis is not None:
            return np.ascontiguousarray(np.moveaxis(stacked, 0, input.batch_axis))
        for row, index in enumerate(batch.samples):
            if not np.array_equal(stacked[row], stacked[0]):
                one, two = (self.samples.name(n) for n in (batch.samples[0], index))
                raise CalibrationError(
                    f"input '{input.name}' has no batch axis, but differs between samples '{one}' "
                    f"and '{two}': give --batch-size 1"
                )
        return np.asarray(stacked[0])

    def _misfit(
        self, first: int, shape: tuple[int, ...], index: int, other: tuple[int, ...], name: str
    ) -> CalibrationError:
        one, two = self.samples.name(first), self.samples.name(index)
        return CalibrationError(
            f"samples '{one}' {shape_text(shape)} and '{two}' {shape_text(other)} of input "
            f"'{name}' differ in shape: give --resize or --crop for images, arrays of one shape, "
            "or --batch-size 1"
        )

    def _checked(self, index: int) -> dict[str, AnyArray]:
        """One sample as the model can take it."""
        sample = self.samples[index]
        for i in self.inputs:
            array, name = sample.get(i.name), self.samples.name(index)
            if array is None:
                raise CalibrationError(f"sample '{name}' has nothing for input '{i.name}'")
            if array.dtype != i.dtype or not i.accepts(array.shape):
                raise CalibrationError(
                    f"sample '{name}' is {array.dtype} {shape_text(array.shape)}, but input "
                    f"'{i.name}' takes {i.dtype} {shape_text(i.sample_shape)}"
                )
            if not np.isfinite(array).all():
                raise CalibrationError(f"sample '{name}' has NaN or Inf for input '{i.name}'")
        return {i.name: sample[i.name] for i in self.inputs}

    def _cut(self, chosen: tuple[int, ...], full_only: bool) -> tuple[Batch, ...]:
        size, split = self.batch_size, len(chosen) - _held_out(len(chosen), self.holdout)
        if full_only and split < size:
            need = next(n for n in count(size) if n - _held_out(n, self.holdout) >= size)
            raise CalibrationError(
                f"{len(chosen)} calibration samples are too few: the model's batch size is fixed "
                f"to {size}, which takes {need} with {self.holdout:g} of them held out"
            )
        batches: list[Batch] = []
        for part, held_out in ((chosen[:split], False), (chosen[split:], True)):
            for start in range(0, len(part), size):
                members = part[start : start + size]
                if len(members) == size or not full_only:
                    batches.append(Batch(len(batches), members, held_out))
        return tuple(batches)


def _held_out(total: int, share: float) -> int:
    if total < 2 or not share:
        return 0
    return min(max(round(share * total), 1), total - 1)


def as_batches(
    data: object,
    inputs: Sequence[ModelInput],
    preprocess: Preprocess | None = None,
    **settings: Any,
) -> Batches:
    """Whatever the Python API is given as calibration data; ``settings`` are ``Batches``'s.

    ``data`` is a ``Batches`` (returned as it is), a path (see ``open_samples``), samples, an
    array with samples first, a dict of such arrays by input name, an iterable of such dicts, or a
    ``CalibrationDataReader`` of ONNX Runtime's; the last two are read once and kept.
    Raises ``CalibrationError`` for data that does not fit.
    """
    if isinstance(data, Batches):
        return data
    return Batches(_as_samples(data, inputs, preprocess), inputs, **settings)


def _as_samples(
    data: object, inputs: Sequence[ModelInput], preprocess: Preprocess | None
) -> Samples:
    if isinstance(data, (str, os.PathLike)):
        return open_samples(os.fspath(data), inputs, preprocess)
    check_no_preprocess("arrays and samples", preprocess)
    if isinstance(data, Samples):
        return data
    if isinstance(data, DataReader):
        return from_reader(data, inputs)
    if isinstance(data, (np.ndarray, Mapping)):
        return ArraySamples.from_data(data, inputs)
    if isinstance(data, Iterable):
        return ArraySamples.from_batches(data, inputs)
    raise UsageError(
        f"calibration data of type {type(data).__name__}: give a path, an array, "
        "a dict of arrays or an iterable of such dicts"
    )

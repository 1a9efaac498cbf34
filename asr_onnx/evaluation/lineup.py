"""Models to be fed the same data: opened, and seen to have the same inputs and outputs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, Feeds
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.evaluation.footprint import Footprint, footprint
from asr_onnx.evaluation.outputs import batch_axis
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph import model_file
from asr_onnx.graph.input_shapes import with_shapes
from asr_onnx.graph.inputs import ModelInput, count_samples, fixed_batch, model_inputs

ModelLike: TypeAlias = "onnx.ModelProto | model_file.LoadedModel | str | os.PathLike[str]"


@dataclass(frozen=True)
class Entry:
    """One model, ready to run."""

    name: str
    proto: onnx.ModelProto
    footprint: Footprint
    runner: Runner


@dataclass(frozen=True)
class Lineup:
    """The dense model first.

    ``inputs`` are what all models take, with an open batch axis; ``batch`` is the batch size one of
    them, or a shape given for an input, insists on.
    """

    entries: tuple[Entry, ...]
    inputs: tuple[ModelInput, ...]
    batch: int | None

    def run(self, feeds: Feeds) -> Iterator[dict[str, AnyArray]]:
        """Each model's outputs by name for a batch's ``feeds``, one model at a time.

        A batch smaller than the size a model insists on is filled up with its last sample.
        """
        count = count_samples(feeds, self.inputs)
        missing = self.batch - count if self.batch else 0
        if missing:
            feeds = {i.name: _filled(feeds[i.name], i, missing) for i in self.inputs}
        for entry in self.entries:
            with _naming(entry.name):
                outputs = entry.runner.run(feeds)
            if missing:
                outputs = {n: _cut(a, count + missing, count) for n, a in outputs.items()}
            yield outputs


def line_up(
    dense: ModelLike,
    others: Iterable[ModelLike] | Mapping[str, ModelLike],
    device: Device,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Lineup:
    """Open the models; a mapping gives their names, others are named after their files.

    ``shapes`` settle what all models leave open, see ``with_shapes``.
    Raises ``ModelError`` when inputs or outputs differ from the dense model's in name, type or
    shape, ``UsageError`` when there is nothing to compare or a shape does not go with the models.
    """
    given = _named(dense, others)
    if len(given) < 2:
        raise UsageError("no model to compare with the dense one")
    entries: list[Entry] = []
    inputs: tuple[ModelInput, ...] = ()
    for name, model in given:
        loaded = _loaded(model)
        with _naming(name):
            own = model_inputs(loaded.proto)
        inputs = _common(inputs, own, name) if entries else own
        with _naming(name):
            runner = Runner(loaded.proto, device, fused=True)
        if entries:
            _same_names("outputs", name, runner.outputs, entries[0].runner.outputs)
        entries.append(Entry(name, loaded.proto, footprint(loaded), runner))
    inputs = with_shapes(inputs, shapes or {})
    batch = fixed_batch(inputs)
    return Lineup(tuple(entries), tuple(_open_batch(i) for i in inputs), batch)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors that do not say which model they are about."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"model '{name}': {error}") from None


def _named(
    dense: ModelLike, others: Iterable[ModelLike] | Mapping[str, ModelLike]
) -> list[tuple[str, ModelLike]]:
    if isinstance(others, (str, os.PathLike, onnx.ModelProto, model_file.LoadedModel)):
        others = [others]
    if isinstance(others, Mapping):
        return [("dense", dense), *others.items()]
    given = [dense, *others]
    paths = [_path(m) for m in given]
    bases = Counter(p.name for p in paths if p)
    names = []
    for number, path in enumerate(paths):
        name = f"model {number}" if number else "dense"
        if path:
            name = path.name if bases[path.name] == 1 else str(path)
        names.append(name if name not in names else f"{name} ({number})")
    return list(zip(names, given, strict=True))


def _path(model: ModelLike) -> Path | None:
    if isinstance(model, model_file.LoadedModel):
        return model.path
    return None if isinstance(model, onnx.ModelProto) else Path(model)


def _loaded(model: ModelLike) -> model_file.LoadedModel:
    if isinstance(model, model_file.LoadedModel):
        return model
    if isinstance(model, onnx.ModelProto):
        model_file.check_readable(model)
        return model_file.LoadedModel(model)
    return model_file.load(Path(model), in_place=True)


# What ``Runner`` feeds from float32.
_FED_FLOAT32 = {np.dtype(np.float32), np.dtype(np.float16)}


def _common(
    inputs: tuple[ModelInput, ...], own: tuple[ModelInput, ...], name: str
) -> tuple[ModelInput, ...]:
    """What both take; dimensions one of them leaves open are the other's.

    Where one takes float16, the other float32, it is float32.
    """
    _same_names("inputs", name, [i.name for i in own], [i.name for i in inputs])
    by_name = {i.name: i for i in own}
    merged = []
    for before in inputs:
        other = by_name[before.name]
        pairs = list(zip(before.shape, other.shape, strict=False))
        if (
            (before.dtype != other.dtype and not {before.dtype, other.dtype} <= _FED_FLOAT32)
            or len(before.shape) != len(other.shape)
            or any(a != b for a, b in pairs if None not in (a, b))
        ):
            raise ModelError(
                f"model '{name}' takes {other}, but the models before it {before}: "
                "compare exports with the same input"
            )
        shape = tuple(b if a is None else a for a, b in pairs)
        merged.append(replace(before, shape=shape, dtype=max(before.dtype, other.dtype)))
    return tuple(merged)


def _same_names(kind: str, name: str, own: Iterable[str], dense: Iterable[str]) -> None:
    if set(own) != set(dense):
        have, want = (", ".join(f"'{n}'" for n in sorted(s)) for s in (own, dense))
        raise ModelError(
            f"model '{name}' has {kind} {have}, but the dense model has {want}: "
            "compare models with the same names"
        )


def _filled(array: AnyArray, input: ModelInput, missing: int) -> AnyArray:
    """An input's array with the last sample ``missing`` times more."""
    axis = input.batch_axis
    if axis is None:
        return array
    last = np.take(array, [-1], axis)
    return np.concatenate([array, last.repeat(missing, axis)], axis)


def _open_batch(input: ModelInput) -> ModelInput:
    """The input with no number of samples fixed."""
    open_ = (None if n == input.batch_axis else size for n, size in enumerate(input.shape))
    return replace(input, shape=tuple(open_))


def _cut(array: AnyArray, size: int, count: int) -> AnyArray:
    axis = batch_axis(array.shape, size)
    return array if axis is None else array[(slice(None),) * axis + (slice(count),)]

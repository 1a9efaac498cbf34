"""Which figures are taken of a model's outputs: where classes lie, and a metric of the user's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, Outputs
from asr_onnx.data.scripts import Script
from asr_onnx.declare import fill, option
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.evaluation.outputs import batch_axis
from asr_onnx.graph.class_axes import class_axes, output_ranks


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is told of outputs beyond what needs no layout; ``UsageError`` for invalid values."""

    class_axis: tuple[str, ...] = option(
        (),
        "Axis along which an output's classes lie, e.g. scores:2 (the batch is axis 0), for "
        "agreement; known without it: [N,C], [N,C,1,1], and what a Softmax or a last linear layer "
        "says; repeatable.",
        kind="text",
        metavar="OUTPUT:AXIS",
        multiple=True,
    )
    metric_script: str | None = option(
        None,
        "A Python function metric(dense_outputs, outputs) -> {name: value}, higher is better, of "
        "arrays by output name with all samples in order; outputs without a batch axis are lists "
        "of arrays, one a batch.  [default function: metric]",
        kind="text",
        metavar="FILE.py[:FUNC]",
        names_file=(),
    )

    def __post_init__(self) -> None:
        fill(self)
        _ = self.declared

    @property
    def declared(self) -> dict[str, int]:
        """Class axes by output name, as ``class_axis`` has them."""
        found = {}
        for text in self.class_axis:
            name, _, axis = text.rpartition(":")
            if not name or not axis.removeprefix("-").isdecimal() or int(axis) == 0:
                raise UsageError(f"class axis '{text}' is not OUTPUT:AXIS, such as scores:2")
            found[name] = int(axis)
        return found

    def axes(self, proto: onnx.ModelProto) -> dict[str, int]:
        """Class axes by output name; raises ``UsageError`` for one that the model has not."""
        given, ranks = self.declared, output_ranks(proto)
        for name, axis in given.items():
            if name not in ranks:
                outputs = ", ".join(f"'{n}'" for n in ranks)
                raise UsageError(
                    f"--class-axis {name}:{axis}: the model's outputs are {outputs}, none is "
                    f"'{name}'"
                )
            rank = ranks[name]
            if rank is not None and (not -rank < axis < rank):
                raise UsageError(
                    f"--class-axis {name}:{axis}: output '{name}' has {rank} axes, of which 0 is "
                    "the batch"
                )
        return class_axes(proto) | given

    @cached_property
    def metric(self) -> Metric | None:
        """The user's metric; the script is read when it is first asked for."""
        return Metric(self.metric_script) if self.metric_script else None


class Metric:
    """A user's ``metric(dense_outputs, outputs)``; ``CalibrationError`` names the script."""

    def __init__(self, spec: str) -> None:
        self._script = Script(spec, "metric", "metric script")

    @property
    def path(self) -> Path:
        """The script's file."""
        return self._script.path

    def __call__(
        self, dense: Sequence[Outputs], outputs: Sequence[Outputs], samples: Sequence[int]
    ) -> dict[str, float]:
        """Values by name, higher is better, of outputs in batches of so many ``samples``."""
        # The arrays are copies: the script may do with them as it likes.
        given = [_gathered(batches, samples) for batches in (dense, outputs)]
        found = self._script.guarded(lambda: self._script.function(*given))
        if not isinstance(found, Mapping) or not found:
            kind = "nothing" if not found else f"a {type(found).__name__}"
            raise CalibrationError(
                f"{self._script.what}: {self._script.name}() gives {kind}, not {{name: value}}"
            )
        return {str(name): self._number(name, value) for name, value in found.items()}

    def _number(self, name: object, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            text = " ".join(str(value).split())
            raise CalibrationError(
                f"{self._script.what}: metric '{name}' is {text[:40]}, not a finite number"
            )
        return number


def _gathered(
    batches: Sequence[Outputs], samples: Sequence[int]
) -> dict[str, AnyArray | list[AnyArray]]:
    """Outputs by name, batches put together along the batch axis; a list where there is none."""
    return {name: _together([b[name] for b in batches], samples) for name in batches[0]}


def _together(arrays: Sequence[AnyArray], samples: Sequence[int]) -> AnyArray | list[AnyArray]:
    axes = {batch_axis(a.shape, n) for a, n in zip(arrays, samples, strict=True)}
    axis = axes.pop()
    if not axes and axis is not None:
        rests = {a.shape[:axis] + a.shape[axis + 1 :] for a in arrays}
        if len(rests) == 1:
            return np.concatenate(arrays, axis)
    return [a.copy() for a in arrays]

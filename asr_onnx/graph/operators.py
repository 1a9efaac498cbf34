"""What is particular to each operator whose weight can be pruned: one record for each.

A weight is seen as rows (G, C / G, K), one for each output channel; ``K`` runs over the kernel's
positions and, fastest, over a group's input channels, as the groups of an N:M pattern do.  The data
a row meets has the same order (``im2col``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr_onnx.arrays import AnyArray

Attributes = Mapping[str, Any]

_SAME = (b"SAME_UPPER", b"SAME_LOWER")


@dataclass(frozen=True)
class Layout:
    """How a weight is stored; a matrix that is ``transposed`` is (C, Cin)."""

    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class Window:
    """How a convolution slides: per spatial axis kernel, stride, dilation and (before, after) pads.

    ``spread`` is the number of input steps one output step of a transposed convolution takes: its
    input is spread out with zeros and then convolved with the reversed kernel.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator.

    ``axis``: where the channels lie in the output.  ``bias_behind``: it has no bias of its own, an
    ``Add`` behind it does that.  ``window`` (kernel, attributes, input and output size) is ``None``
    for linear operators, which slide over nothing.  ``refuses`` says why a node with a constant
    weight of so many axes is left alone all the same; empty when it is not.
    """

    axis: int
    channels: Callable[[Layout], int]
    to_rows: Callable[[Layout, AnyArray], AnyArray]
    from_rows: Callable[[Layout, AnyArray], AnyArray]
    refuses: Callable[[int, Attributes], str]
    window: Callable[[tuple[int, ...], Attributes, Sequence[int], Sequence[int]], Window] | None
    bias_behind: bool = False

    @property
    def linear(self) -> bool:
        """Whether it is a matrix product rather than a convolution."""
        return self.window is None


def _conv_to_rows(layout: Layout, weight: AnyArray) -> AnyArray:
    """(C, Cin / G, *kernel)"""
    rows = np.moveaxis(weight, 1, -1)
    return rows.reshape(layout.groups, layout.shape[0] // layout.groups, -1)


def _conv_from_rows(layout: Layout, rows: AnyArray) -> AnyArray:
    shape = layout.shape
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _transpose_to_rows(layout: Layout, weight: AnyArray) -> AnyArray:
    """(Cin, C / G, *kernel); the kernel meets the data reversed"""
    flipped = np.flip(weight, tuple(range(2, weight.ndim)))
    split = flipped.reshape(layout.groups, -1, *weight.shape[1:])
    return np.moveaxis(split, 1, -1).reshape(layout.groups, weight.shape[1], -1)


def _transpose_from_rows(layout: Layout, rows: AnyArray) -> AnyArray:
    shape = layout.shape
    inputs = shape[0] // layout.groups
    split = np.moveaxis(rows.reshape(layout.groups, *shape[1:], inputs), -1, 1)
    return np.flip(split.reshape(shape), tuple(range(2, len(shape))))


def _matrix_to_rows(layout: Layout, weight: AnyArray) -> AnyArray:
    """(Cin, C), transposed (C, Cin)"""
    matrix = weight if layout.transposed else weight.T
    return matrix.reshape(1, *matrix.shape)


def _matrix_from_rows(layout: Layout, rows: AnyArray) -> AnyArray:
    return rows[0] if layout.transposed else np.transpose(rows[0])


def _conv_window(
    kernel: tuple[int, ...], found: Attributes, x: Sequence[int], y: Sequence[int]
) -> Window:
    strides, dilations, spans, before = _common(kernel, found)
    total = [
        max(0, (o - 1) * s + span + 1 - i)
        for o, s, span, i in zip(y, strides, spans, x, strict=True)
    ]
    auto = found.get("auto_pad", b"NOTSET")
    if auto in _SAME:
        before = [t // 2 if auto == b"SAME_UPPER" else -(-t // 2) for t in total]
    pads = tuple((b, max(0, t - b)) for b, t in zip(before, total, strict=True))
    return Window(kernel, strides, dilations, pads, (1,) * len(kernel))


def _transpose_window(
    kernel: tuple[int, ...], found: Attributes, x: Sequence[int], y: Sequence[int]
) -> Window:
    if refused := _transpose_refuses(len(kernel) + 2, found):
        raise NotImplementedError(f"ConvTranspose: {refused}")
    strides, dilations, spans, before = _common(kernel, found)
    pads = tuple(
        (span - b, o + b - 1 - (i - 1) * s)
        for i, o, s, span, b in zip(x, y, strides, spans, before, strict=True)
    )
    return Window(kernel, (1,) * len(kernel), dilations, pads, strides)


def _common(
    kernel: tuple[int, ...], found: Attributes
) -> tuple[tuple[int, ...], tuple[int, ...], list[int], list[int]]:
    """Strides, dilations, the kernel's spans and the pads before, per spatial axis."""
    ones = (1,) * len(kernel)
    strides = tuple(found.get("strides") or ones)
    dilations = tuple(found.get("dilations") or ones)
    spans = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    given = tuple(found.get("pads") or (0,) * 2 * len(kernel))
    return strides, dilations, spans, list(given[: len(kernel)])


def _transpose_refuses(ndim: int, found: Attributes) -> str:
    depends = found.get("auto_pad", b"NOTSET") in _SAME or "output_shape" in found
    return "its padding depends on its input's size" if depends else ""


def _gemm_refuses(ndim: int, found: Attributes) -> str:
    if ndim != 2:
        return "its weight is no matrix"
    if found.get("alpha", 1) != 1 or found.get("beta", 1) != 1:
        return "alpha and beta are not 1"
    return "its input is transposed" if found.get("transA", 0) else ""


def _matrix_channels(layout: Layout) -> int:
    return layout.shape[0 if layout.transposed else 1]


OPERATORS: dict[str, Operator] = {
    "Conv": Operator(
        axis=1,
        channels=lambda layout: layout.shape[0],
        to_rows=_conv_to_rows,
        from_rows=_conv_from_rows,
        refuses=lambda ndim, found: "",
        window=_conv_window,
    ),
    "ConvTranspose": Operator(
        axis=1,
        channels=lambda layout: layout.shape[1] * layout.groups,
        to_rows=_transpose_to_rows,
        from_rows=_transpose_from_rows,
        refuses=_transpose_refuses,
        window=_transpose_window,
    ),
    "Gemm": Operator(
        axis=-1,
        channels=_matrix_channels,
        to_rows=_matrix_to_rows,
        from_rows=_matrix_from_rows,
        refuses=_gemm_refuses,
        window=None,
    ),
    "MatMul": Operator(
        axis=-1,
        channels=_matrix_channels,
        to_rows=_matrix_to_rows,
        from_rows=_matrix_from_rows,
        refuses=lambda ndim, found: "its weight is no matrix" if ndim != 2 else "",
        window=None,
        bias_behind=True,
    ),
}
LINEAR = tuple(name for name, operator in OPERATORS.items() if operator.linear)

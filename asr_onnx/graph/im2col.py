"""The data a site's rows are multiplied with: im2col, at all positions or a seeded part of them.

``y[position, row] = rows[row] . patch[position] + bias`` for every operator a site may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray, Float32Array
from asr_onnx.graph.operators import OPERATORS, Window
from asr_onnx.graph.records import Site

_BLOCK = 1 << 24  # elements of patches in memory at a time: 64 MiB of float32


@dataclass(frozen=True)
class Patches:
    """Part of a batch: ``columns`` (G, P, K), taken at ``index`` of the output's positions.

    ``index`` is (N of the part, positions taken of each sample).
    """

    columns: Float32Array
    samples: slice
    index: NDArray[np.intp]
    axis: int

    def rows(self, y: AnyArray) -> Float32Array:
        """The same positions of an output-shaped activation, as (P, C)."""
        part = np.moveaxis(y[self.samples], self.axis, -1)
        flat = part.reshape(len(part), -1, part.shape[-1])
        if self.index.shape[1] < flat.shape[1]:
            start = np.arange(len(flat))[:, None] * flat.shape[1]
            flat = flat.reshape(-1, flat.shape[-1]).take((start + self.index).ravel(), axis=0)
        rows = np.ascontiguousarray(flat.reshape(-1, flat.shape[-1]))
        return rows.astype(np.float32, copy=False)


def window_of(site: Site, node: onnx.NodeProto, x: AnyArray, y: AnyArray) -> Window | None:
    """The window of a convolution that made ``y`` (N, C, ...) from ``x``; ``None`` for others."""
    make = OPERATORS[site.op].window
    if make is None:
        return None
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return make(site.weight.value.shape[2:], attributes, x.shape[2:], y.shape[2:])


def patches(
    site: Site, node: onnx.NodeProto, x: AnyArray, y: AnyArray, share: float = 1.0, seed: int = 0
) -> Iterator[Patches]:
    """Cut ``x``, the input that gave ``y``, into patches, a bounded number at a time.

    ``share`` < 1 takes that share of each sample's positions, at least one, drawn with ``seed``.
    """
    positions = math.prod(y.shape[1:]) // site.channels
    count = positions if share >= 1 else max(1, round(share * positions))
    window = window_of(site, node, x, y)
    width = site.weight.value.size // site.channels * site.groups
    step = max(1, _BLOCK // (count * width))
    rng = np.random.default_rng(seed)
    for start in range(0, len(x), step):
        part = np.asarray(x[start : start + step], np.float32)
        index = np.broadcast_to(np.arange(positions), (len(part), positions))
        if count < positions:
            index = np.sort(rng.permuted(index, axis=1)[:, :count], axis=1)
        if window is None:
            flat = part.reshape(len(part), positions, -1)
            columns = np.take_along_axis(flat, index[:, :, None], axis=1)
            columns = columns.reshape(1, -1, flat.shape[-1])
        else:
            columns = _im2col(part, window, index, y.shape[2:], site.groups)
        yield Patches(columns, slice(start, start + step), index, site.axis)


def _im2col(
    x: Float32Array, w: Window, index: NDArray[np.intp], output: tuple[int, ...], groups: int
) -> Float32Array:
    """Patches (G, N * positions, K) of ``x`` (N, Cin, ...)."""
    x = _pad(_spread(np.moveaxis(x, 1, -1), w.spread), w.pads)
    size = x.shape[1:-1]
    n, channels = len(x), x.shape[-1]
    # Offsets in one sample's flattened positions: of each output position, of each kernel tap.
    steps = np.cumprod([1, *size[:0:-1]])[::-1]
    place = np.unravel_index(index, output)
    base = sum(i * s * t for i, s, t in zip(place, w.strides, steps, strict=True))
    taps = np.indices(w.kernel).reshape(len(w.kernel), -1)
    offset = (taps * (np.asarray(w.dilations) * steps)[:, None]).sum(axis=0)
    start = np.arange(n)[:, None, None] * math.prod(size)
    where = start + np.asarray(base)[:, :, None] + offset
    picked = x.reshape(-1, channels).take(where.ravel(), axis=0)
    grouped = picked.reshape(-1, len(offset), groups, channels // groups)
    columns = np.moveaxis(grouped, 2, 0)
    return np.ascontiguousarray(columns.reshape(groups, n * index.shape[1], -1))


def _spread(x: Float32Array, spread: tuple[int, ...]) -> Float32Array:
    """``x`` (N, ..., Cin) with zeros between its positions, ``spread`` steps apart."""
    if all(s == 1 for s in spread):
        return x
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], spread, strict=True)]
    wide = np.zeros((len(x), *size, x.shape[-1]), x.dtype)
    wide[(slice(None), *(slice(None, None, s) for s in spread))] = x
    return wide


def _pad(x: Float32Array, pads: tuple[tuple[int, int], ...]) -> Float32Array:
    """Zero padding of ``x`` (N, ..., Cin); a negative pad crops."""
    x = np.pad(x, [(0, 0), *((max(a, 0), max(b, 0)) for a, b in pads), (0, 0)])
    crop = (slice(-min(a, 0), x.shape[i + 1] + min(b, 0)) for i, (a, b) in enumerate(pads))
    return x[(slice(None), *crop)]

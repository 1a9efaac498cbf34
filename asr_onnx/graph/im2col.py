"""The data a site's rows are multiplied with: im2col, at all positions or a seeded part of them.

``y[position, row] = rows[row] . patch[position] + bias`` for every operator a site may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray, Float32Array
from asr_onnx.graph.operators import OPERATORS, Window
from asr_onnx.graph.records import Site


@dataclass(frozen=True)
class Patches:
    """``columns`` (G, P, K), taken at ``index`` (N, positions of each sample) of the output's."""

    columns: Float32Array
    index: NDArray[np.intp]
    axis: int

    def rows(self, y: AnyArray) -> Float32Array:
        """The same positions of an output-shaped activation, as (P, C)."""
        part = np.moveaxis(y, self.axis, 1)
        part = part.reshape(*part.shape[:2], -1)
        taken = self.index.shape[1]
        rows = np.empty((len(part), taken, part.shape[1]), np.float32)
        for one, channels, index in zip(rows, part, self.index, strict=True):
            some = channels if taken == channels.shape[1] else channels.take(index, axis=1)
            one[:] = some.T
        return rows.reshape(-1, part.shape[1])


def window_of(site: Site, node: onnx.NodeProto, x: AnyArray, y: AnyArray) -> Window | None:
    """The window of a convolution that made ``y`` (N, C, ...) from ``x``; ``None`` for others."""
    make = OPERATORS[site.op].window
    if make is None:
        return None
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return make(site.weight.value.shape[2:], attributes, x.shape[2:], y.shape[2:])


def patches(
    site: Site, node: onnx.NodeProto, x: AnyArray, y: AnyArray, share: float = 1.0, seed: int = 0
) -> Patches:
    """Cut ``x``, the input that gave ``y``, into patches.

    ``share`` < 1 takes that share of each sample's positions, at least one.  They are drawn anew
    for each sample, by its number from ``seed`` on, whatever samples it comes with.
    """
    positions = math.prod(y.shape[1:]) // site.channels
    count = taken(positions, share)
    x = np.asarray(x, np.float32)
    index = np.broadcast_to(np.arange(positions), (len(x), positions))
    if count < positions:
        draws = (np.random.default_rng(seed + n) for n in range(len(x)))
        some = [r.choice(positions, count, replace=False, shuffle=False) for r in draws]
        index = np.sort(some, axis=1)
    window = window_of(site, node, x, y)
    if window is None:
        flat = x.reshape(len(x), positions, -1)
        columns = np.take_along_axis(flat, index[:, :, None], axis=1)
        columns = columns.reshape(1, -1, flat.shape[-1])
    else:
        columns = _im2col(x, window, index, y.shape[2:], site.groups)
    return Patches(columns, index, site.axis)


def taken(positions: int, share: float) -> int:
    """How many of a sample's positions a share of them is."""
    return positions if share >= 1 else max(1, round(share * positions))


def _im2col(
    x: Float32Array, w: Window, index: NDArray[np.intp], output: tuple[int, ...], groups: int
) -> Float32Array:
    """Patches (G, N * positions, K) of ``x`` (N, Cin, ...)."""
    x = _pad(_spread(x, w.spread), w.pads)
    size = x.shape[2:]
    n, channels = x.shape[:2]
    # Offsets in one sample's flattened positions: of each output position, of each kernel tap.
    steps = np.cumprod([1, *size[:0:-1]])[::-1]
    place = np.unravel_index(index, output)
    base = np.asarray(sum(i * s * t for i, s, t in zip(place, w.strides, steps, strict=True)))
    taps = np.indices(w.kernel).reshape(len(w.kernel), -1)
    offset = (taps * (np.asarray(w.dilations) * steps)[:, None]).sum(axis=0)
    x = x.reshape(n, channels, -1)
    columns = np.empty((groups, n, index.shape[1], len(offset), channels // groups), np.float32)
    for sample in range(n):
        where = base[sample][:, None] + offset
        if groups == 1 and where.size > x.shape[2]:  # most is read: all channels of a position
            last = np.ascontiguousarray(x[sample].T)
            last.take(where, axis=0, out=columns[0, sample], mode="clip")  # all are in bounds
        else:
            picked = x[sample].take(where, axis=1)
            columns[:, sample] = picked.reshape(groups, -1, *where.shape).transpose(0, 2, 3, 1)
    return columns.reshape(groups, n * index.shape[1], -1)


def _spread(x: Float32Array, spread: tuple[int, ...]) -> Float32Array:
    """``x`` (N, Cin, ...) with zeros between its positions, ``spread`` steps apart."""
    if all(s == 1 for s in spread):
        return x
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], spread, strict=True)]
    wide = np.zeros((*x.shape[:2], *size), x.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, s) for s in spread))] = x
    return wide


def _pad(x: Float32Array, pads: tuple[tuple[int, int], ...]) -> Float32Array:
    """Zero padding of ``x`` (N, Cin, ...); a negative pad crops."""
    if any(max(pair) > 0 for pair in pads):
        x = np.pad(x, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in pads)])
    crop = (slice(-min(a, 0), x.shape[i + 2] + min(b, 0)) for i, (a, b) in enumerate(pads))
    return x[(slice(None), slice(None), *crop)]

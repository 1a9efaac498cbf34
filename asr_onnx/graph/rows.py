"""Weights of every operator as rows: (groups, rows per group, K), one row per output channel.

``K`` runs over the kernel's positions and, fastest, over a group's input channels, as the groups of
an N:M pattern do; the data a row meets has the same order (``patches``).
"""

from __future__ import annotations

import math

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.records import Site


def to_rows(site: Site, weight: AnyArray) -> AnyArray:
    """The site's ``weight`` as (G, C / G, K)."""
    if site.op == "Conv":  # (C, Cin / G, *kernel)
        rows = np.moveaxis(weight, 1, -1)
        return rows.reshape(site.groups, site.channels // site.groups, -1)
    if site.op == "ConvTranspose":  # (Cin, C / G, *kernel), the kernel meets the data reversed
        flipped = np.flip(weight, tuple(range(2, weight.ndim)))
        split = flipped.reshape(site.groups, -1, *weight.shape[1:])
        return np.moveaxis(split, 1, -1).reshape(site.groups, weight.shape[1], -1)
    matrix = weight if site.transposed else weight.T  # (C, Cin)
    return matrix.reshape(1, *matrix.shape)


def from_rows(site: Site, rows: AnyArray) -> AnyArray:
    """The inverse of ``to_rows``."""
    shape = site.weight.value.shape
    if site.op == "Conv":
        weight = np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    elif site.op == "ConvTranspose":
        inputs = shape[0] // site.groups
        split = np.moveaxis(rows.reshape(site.groups, *shape[1:], inputs), -1, 1)
        weight = np.flip(split.reshape(shape), tuple(range(2, len(shape))))
    else:
        weight = rows[0] if site.transposed else rows[0].T
    return np.ascontiguousarray(weight)


def channels_first(site: Site) -> AnyArray:
    """The site's weight as (C, *kernel, Cin / groups), whatever its layout."""
    value = site.weight.value
    return to_rows(site, value).reshape(site.channels, *value.shape[2:], -1)


def kernel_size(site: Site) -> int:
    """Positions of the kernel: ``K = kernel_size * input channels of a group``."""
    shape = site.weight.value.shape
    return math.prod(shape[2:]) if site.op in ("Conv", "ConvTranspose") else 1


def per_channel(values: AnyArray, ndim: int, axis: int) -> AnyArray:
    """(C,) shaped to go with an activation of ``ndim`` axes whose channels lie on ``axis``."""
    return values.reshape(-1, *[1] * (ndim - 1 - axis % ndim))

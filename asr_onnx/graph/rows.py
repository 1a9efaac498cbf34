"""A site's weight as rows (G, C / G, K), one per output channel, and back; see ``operators``."""

from __future__ import annotations

import math

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.operators import OPERATORS, Layout
from asr_onnx.graph.records import Site


def _layout(site: Site) -> Layout:
    return Layout(site.weight.value.shape, site.groups, site.transposed)


def to_rows(site: Site, weight: AnyArray) -> AnyArray:
    """The site's ``weight``, or something of its shape, as (G, C / G, K)."""
    return OPERATORS[site.op].to_rows(_layout(site), weight)


def from_rows(site: Site, rows: AnyArray) -> AnyArray:
    """The inverse of ``to_rows``."""
    return np.ascontiguousarray(OPERATORS[site.op].from_rows(_layout(site), rows))


def channels_first(site: Site) -> AnyArray:
    """The site's weight as (C, *kernel, Cin / groups), whatever its layout."""
    value = site.weight.value
    return to_rows(site, value).reshape(site.channels, *value.shape[2:], -1)


def kernel_size(site: Site) -> int:
    """Positions of the kernel: ``K = kernel_size * input channels of a group``."""
    return math.prod(site.weight.value.shape[2:])


def per_channel(values: AnyArray, ndim: int, axis: int) -> AnyArray:
    """(C,) shaped to go with an activation of ``ndim`` axes whose channels lie on ``axis``."""
    return values.reshape(-1, *[1] * (ndim - 1 - axis % ndim))

"""What a model costs before it runs: bytes, compressed bytes, zeros, dead channels."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from asr_onnx.errors import ModelError
from asr_onnx.graph import model_file
from asr_onnx.graph.rows import to_rows
from asr_onnx.graph.sites import find_sites
from asr_onnx.graph.tensor_values import held, is_in_file, opened

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Footprint:
    """``size`` and zlib-``compressed`` size in bytes, external data included.

    ``zeros`` of ``weights`` and ``dead`` of ``channels`` (no weight left) count over the
    convolutions that can be pruned; there are none in a model without any.
    """

    size: int
    compressed: int
    weights: int
    zeros: int
    channels: int
    dead: int


def footprint(model: model_file.LoadedModel) -> Footprint:
    """Measure a model: its files, or where it came from none, what it would be as one file."""
    if model.path is None:
        weights = (opened(held(t)) for t in model.proto.graph.initializer if is_in_file(t))
        parts = (w.reshape(-1).view(np.uint8).data for w in weights)
        chunks: Iterable[bytes | memoryview] = chain([model.proto.SerializeToString()], parts)
    else:
        chunks = _read(model_file.files(model.path))
    size, compressed = _sizes(chunks)
    try:
        sites = find_sites(model.proto).sites
    except ModelError:  # nothing to count, or nothing countable
        sites = ()
    dead = sum(int((~to_rows(s, s.weight.value).any(axis=2)).sum()) for s in sites)
    return Footprint(
        size=size,
        compressed=compressed,
        weights=sum(s.weight.value.size for s in sites),
        zeros=sum(s.zeros for s in sites),
        channels=sum(s.channels for s in sites),
        dead=dead,
    )


def _read(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def _sizes(chunks: Iterable[bytes | memoryview]) -> tuple[int, int]:
    packer = zlib.compressobj()
    size = compressed = 0
    for chunk in chunks:
        size += len(chunk)
        compressed += len(packer.compress(chunk))
    return size, compressed + len(packer.flush())


def zero_share(footprint: Footprint) -> float | None:
    """Share of zeros among the weights, ``None`` without weights."""
    return footprint.zeros / footprint.weights if footprint.weights else None

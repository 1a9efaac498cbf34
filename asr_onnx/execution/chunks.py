"""Samples in chunks that do not depend on the batches they ran in: sums over them are the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr_onnx.arrays import AnyArray

Part = Callable[[int, slice], AnyArray]  # some samples of a batch of a tensor
Of = Callable[[Part], AnyArray]  # the samples in question of the tensor


class Piece(NamedTuple):
    """Some samples of a batch."""

    batch: int
    samples: slice


@dataclass(frozen=True)
class Chunk:
    """Consecutive samples of like shape; ``first`` is the number of the first of them."""

    first: int
    pieces: tuple[Piece, ...]

    def of(self, tensor: Part) -> AnyArray:
        """A tensor of these samples, where ``tensor`` gives some of a batch's."""
        parts = [tensor(batch, samples) for batch, samples in self.pieces]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def chunks(batches: Iterable[tuple[int, int, Hashable]], size: int) -> list[Chunk]:
    """Chunks of ``size`` samples from batches given by number, samples in it, and their shape."""
    found: list[Chunk] = []
    pieces: list[Piece] = []
    shape: Hashable = None
    first = number = 0

    def close() -> None:
        nonlocal first
        if pieces:
            found.append(Chunk(first, tuple(pieces)))
        pieces.clear()
        first = number

    for batch, count, like in batches:
        if like != shape:
            close()
            shape = like
        start = 0
        while start < count:
            stop = min(count, start + size - (number - first))
            pieces.append(Piece(batch, slice(start, stop)))
            number += stop - start
            start = stop
            if number - first == size:
                close()
    close()
    return found

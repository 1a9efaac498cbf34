"""What a layer's second moments are summed over: patches of its input, with the dense output."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from asr_onnx.arrays import Float32Array
from asr_onnx.execution.chunks import Chunk, chunks
from asr_onnx.execution.frames import Frames
from asr_onnx.execution.stream import Stream
from asr_onnx.graph.im2col import patches, taken
from asr_onnx.graph.records import Site
from asr_onnx.maths.targets import Frame

# Positions used per entry K of a row.  Least squares over N positions adds about K / N to the error
# that is left: one per cent.  Positions of one image are alike, so rows of few inputs have more.
_POSITIONS_PER_INPUT = 100
_POSITIONS_PER_FEW = 256
_POSITIONS = 1 << 14  # from which on they have not
_CHUNK = 1 << 12  # positions in a block at most,
_CUT = 1 << 23  # elements of their patches, and
_READ = 1 << 24  # elements of the activations they are cut from
_KEPT = 1 << 25  # elements that are kept while the layer is solved: 128 MiB


class Block(NamedTuple):
    """``columns``: patches (G, P, K), less ``Blocks.offset``; what belongs to the P positions.

    The dense output (P, C), the way to the sum behind it, and the dense sum (P, C).
    """

    columns: Float32Array
    dense: Float32Array
    frame: Frame
    dense_sum: Float32Array


class Blocks:
    """Blocks by chunk, of the same positions each time; where they are few they are kept.

    Of ``site``'s input in the ``repaired`` stream and its output in the ``dense`` one, in some
    ``batches``.
    """

    def __init__(
        self,
        dense: Stream,
        repaired: Stream,
        site: Site,
        batches: Iterable[int],
        frame: Frames,
    ) -> None:
        self._dense, self._repaired, self._site, self._frame = dense, repaired, site, frame
        self._known: dict[int, Block] = {}
        self.offset: Float32Array | None = None  # (G, 1, K), the mean patch of the first block
        found = []
        total, positions, read = 0, 1, 1
        for batch in sorted(batches):
            x, y = repaired.shape(batch, site.input), dense.shape(batch, site.output)
            assert x and y
            found.append((batch, y[0], (x[1:], y[1:])))
            each = math.prod(y[1:]) // site.channels
            total, positions = total + y[0] * each, max(positions, each)
            read = max(read, math.prod(x[1:]), math.prod(y[1:]))
        inputs = site.weight.value.size // site.channels
        least = min(_POSITIONS, _POSITIONS_PER_FEW * inputs)
        self._share = min(1.0, max(least, _POSITIONS_PER_INPUT * inputs) / total)
        width = inputs * site.groups
        size = min(min(_CHUNK, _CUT // width) // taken(positions, self._share), _READ // read)
        self.chunks = chunks(found, max(1, size))
        self._keeps = self._share * total * (width + 4 * site.channels) <= _KEPT

    def __getitem__(self, chunk: Chunk) -> Block:
        found = self._known.get(chunk.first)
        if found is None:
            x = chunk.of(lambda batch, some: self._repaired.part(batch, self._site.input, some))
            y = chunk.of(lambda batch, some: self._dense.part(batch, self._site.output, some))
            node = self._repaired.node(self._site)
            part = patches(self._site, node, x, y, self._share, seed=chunk.first)
            frame, dense = self._frame(chunk.of, part.rows), part.rows(y)
            if self.offset is None:
                self.offset = part.columns.mean(axis=1, keepdims=True)
            part.columns[:] -= self.offset
            found = Block(part.columns, dense, frame, frame.dense_sum(dense))
            if self._keeps:
                self._known[chunk.first] = found
        return found

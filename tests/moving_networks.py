"""Random small CNNs that move channels about: split, shuffled, flattened, transposed, weighed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from networks import WIDEST, Map, Network, Writer
from onnx import helper


@st.composite
def moving_networks(draw: Callable[..., Any]) -> Network:
    """Networks as in ``networks``, with what moves channels between convolutions."""
    return _Mover(draw).network()


class _Mover(Writer):
    most_steps = 12
    most_outputs = 0

    def finish(self) -> None:
        """A product, so that channels before it are no outputs."""
        x, ones = self._maps[-1], [1] * len(self._maps[0].size)
        weight = self._store(self._normal(3, x.channels, *ones))
        self._push("Conv", [x.name, weight], 3, x.size)

    def others(self) -> list[Callable[[], None]]:
        more = [self.add, self.concat, self.norm, self.act, self.pool]
        more += [self.split, self.slice, self.gather, self.shuffle, self.weigh, self.turned]
        more += [self.flat, self.pad, self.prelu, self.instance, self.blocks, self.offset]
        return more

    def split(self) -> None:
        x = self._pick(lambda t: t.channels > 1)
        if x.channels < 2:
            return
        first = self._draw(st.integers(1, x.channels - 1))
        sizes = [first, x.channels - first]
        outputs = [self._fresh(), self._fresh()]
        axis = self._draw(st.sampled_from([1, -1 - len(x.size)]))
        inputs = [x.name, self._ints(sizes)]
        self._nodes.append(helper.make_node("Split", inputs, outputs, axis=axis))
        self._maps += [Map(t, n, x.size) for t, n in zip(outputs, sizes, strict=True)]
        if self._chance(2):
            self._push("Concat", outputs[::-1], x.channels, x.size, axis=1)

    def slice(self) -> None:
        x, draw = self._pick(), self._draw
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        start, end = sorted(draw(st.integers(0, x.channels)) for _ in range(2))
        bounds = (start, end) if step > 0 else (end, start)
        end = draw(st.sampled_from([bounds[1], 1000 if step > 0 else -1000]))
        wide = len(range(x.channels)[slice(bounds[0], end, step)])
        if wide:
            given = [self._ints([v]) for v in (bounds[0], end, 1, step)]
            self._push("Slice", [x.name, *given], wide, x.size)

    def gather(self) -> None:
        x = self._pick()
        some = st.lists(st.integers(-x.channels, x.channels - 1), min_size=1, max_size=8)
        indices = self._draw(st.one_of(some, st.permutations(range(x.channels))))
        self._push("Gather", [x.name, self._ints(indices)], len(indices), x.size, axis=1)

    def shuffle(self) -> None:
        x = self._pick(lambda t: t.channels % 2 == 0)
        groups = self._draw(st.sampled_from([g for g in (2, 3, 4) if x.channels % g == 0] or [1]))
        apart = self._ints([0, groups, x.channels // groups, *x.size])
        order = [0, 2, 1, *range(3, 3 + len(x.size))]
        turned = self._node("Transpose", [self._node("Reshape", [x.name, apart])], perm=order)
        shape = self._ints([0, self._draw(st.sampled_from([x.channels, -1])), *x.size])
        self._push("Reshape", [turned, shape], x.channels, x.size)

    def weigh(self) -> None:
        """Squeeze and excitation (Hu et al. 2018)."""
        x, ones = self._pick(), [1] * len(self._maps[0].size)
        inner = self._draw(st.integers(1, 4))
        pooled = self._node("GlobalAveragePool", [x.name])
        down = self._weight((inner, x.channels, *ones))
        hidden = self._node("Relu", [self._node("Conv", [pooled, down])])
        up = self._node("Conv", [hidden, self._weight((x.channels, inner, *ones))])
        self._push("Mul", [x.name, self._node("Sigmoid", [up])], x.channels, x.size)

    def turned(self) -> None:
        """Channels last, a product there, and back."""
        x, last = self._pick(), len(self._maps[0].size) + 1
        there, back = [0, *range(2, last + 1), 1], [0, last, *range(1, last)]
        name, wide = self._node("Transpose", [x.name], perm=there), x.channels
        if self._chance(2):
            wide = self._draw(st.integers(2, 6))
            name = self._node("MatMul", [name, self._store(self._normal(x.channels, wide))])
        name = self._node("Add", [name, self._constant(self._normal(wide))])
        self._push("Transpose", [name], wide, x.size, perm=back)

    def flat(self) -> None:
        """One axis and back, in a shape that is constant or taken from the data."""
        x = self._pick()
        shape = self._node("Shape", [x.name]) if self._chance(2) else None
        name = self._node("Flatten", [x.name])
        if self._chance(2):
            scale = self._store(self._normal(x.channels * int(np.prod(x.size))))
            name = self._node("Mul", [name, scale])
        shape = shape or self._ints([0, x.channels, *x.size])
        self._push("Reshape", [name, shape], x.channels, x.size)

    def pad(self) -> None:
        x = self._pick(lambda t: t.channels < WIDEST - 4)
        before, after = (self._draw(st.integers(-1, 2)) for _ in range(2))
        wide, rest = x.channels + before + after, [0] * len(x.size)
        if 0 < wide <= WIDEST and x.channels > 2:
            pads = self._ints([0, before, *rest, 0, after, *rest])
            self._push("Pad", [x.name, pads], wide, x.size)

    def prelu(self) -> None:
        x = self._pick()
        slope = self._constant(self._normal(x.channels, *[1] * len(x.size)))
        self._push("PRelu", [x.name, slope], x.channels, x.size)

    def instance(self) -> None:
        x = self._pick(lambda t: max(t.size) > 2)
        if max(x.size) > 2:
            parameters = [self._constant(self._normal(x.channels)) for _ in range(2)]
            self._push("InstanceNormalization", [x.name, *parameters], x.channels, x.size)

    def offset(self) -> None:
        """A constant for each channel, on either side of what has to know no order."""
        x, op = self._pick(), self._draw(st.sampled_from(["Add", "Mul", "Max", "Sub"]))
        constant = self._constant(self._normal(1, x.channels, *[1] * len(x.size)))
        inputs = [x.name, constant] if self._chance(2) else [constant, x.name]
        self._push(op, inputs, x.channels, x.size)

    def blocks(self) -> None:
        """Pixels from channels, or channels from pixels."""
        x, mode = self._pick(lambda t: len(t.size) == 2), self._draw(st.sampled_from("DC"))
        if len(x.size) == 2 and x.channels % 4 == 0 and max(x.size) < 6:
            size = tuple(2 * n for n in x.size)
            mode = {"D": "DCR", "C": "CRD"}[mode]
            self._push("DepthToSpace", [x.name], x.channels // 4, size, blocksize=2, mode=mode)
        elif len(x.size) == 2 and x.channels <= 4 and all(n % 2 == 0 for n in x.size):
            size = tuple(n // 2 for n in x.size)
            self._push("SpaceToDepth", [x.name], 4 * x.channels, size, blocksize=2)

    def _ints(self, values: list[int]) -> str:
        return self._store(np.array(values, np.int64))

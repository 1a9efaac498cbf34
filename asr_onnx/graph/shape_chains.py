"""Values computed from the shapes of activations: do they follow when channels are removed?

A chain from a ``Shape`` to the target of a ``Reshape`` is computed twice, for the shapes as they
are and for all labelled axes ``TIMES`` as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.computed import evaluate
from asr_onnx.graph.inputs import Shape
from asr_onnx.graph.labels import STAND_IN, Labels

TIMES = 3
_MOST = 1 << 12  # elements
_OPS = frozenset(
    {
        "Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Floor", "Gather",
        "Identity", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Pow", "ReduceProd", "Reshape",
        "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Chained:
    """A value, that for wider tensors, and the labelled tensors whose shape it is computed from."""

    now: AnyArray | None
    wider: AnyArray | None
    origins: frozenset[str]

    @property
    def depends(self) -> bool:
        """Whether it changes with the number of channels, as far as one can tell."""
        if self.now is None or self.wider is None:
            return bool(self.origins)
        return not np.array_equal(self.now, self.wider)

    def follows(self, position: int) -> bool:
        """Whether it is a shape that is right at ``position`` and stays as it is elsewhere."""
        if self.now is None or self.wider is None or self.now.shape != self.wider.shape:
            return False
        wanted = self.now.copy()
        if wanted[position] > 0:  # else it is told by the data
            wanted[position] *= TIMES
        return np.array_equal(self.wider, wanted)


class ShapeChains:
    """The tensors that depend on shapes alone, ``found`` by name in the order of the graph."""

    def __init__(
        self, opsets: Mapping[str, int], constant: Callable[[str], AnyArray | None]
    ) -> None:
        self.found: dict[str, Chained] = {}
        self._opsets, self._constant = opsets, constant

    def take(self, node: onnx.NodeProto, shape: Shape | None, labels: Labels | None) -> bool:
        """Whether the node belongs to a chain; its outputs are then found.

        ``shape`` and ``labels`` are those of its first input.
        """
        if node.op_type in ("Shape", "Size"):
            origins = frozenset([node.input[0]] if labels else [])
            pair = [self._measured(node, shape, labels, times) for times in (1, TIMES)]
        elif node.op_type in _OPS and any(t in self.found for t in node.input):
            chained = [self.found[t] for t in node.input if t in self.found]
            if any(t not in self.found and self._constant(t) is None for t in node.input if t):
                return False
            origins = frozenset().union(*(c.origins for c in chained))
            pair = [self._computed(node, wider) for wider in (False, True)]
        else:
            return False
        now, wider = pair
        for t in node.output:
            self.found[t] = Chained(now.get(t), wider.get(t), origins)
        return True

    def _measured(
        self, node: onnx.NodeProto, shape: Shape | None, labels: Labels | None, times: int
    ) -> dict[str, AnyArray]:
        if shape is None:
            return {}
        dims = [STAND_IN if d is None else d for d in shape]
        if labels:
            dims[labels.axis] = times * labels.ids.size
        like = np.broadcast_to(np.int8(0), dims)
        return evaluate(node, self._opsets, {node.input[0]: like})

    def _computed(self, node: onnx.NodeProto, wider: bool) -> dict[str, AnyArray]:
        feeds = {}
        for t in filter(None, node.input):
            chain = self.found.get(t)
            value = (chain.wider if wider else chain.now) if chain else self._constant(t)
            if value is None or value.size > _MOST:
                return {}
            feeds[t] = value
        if node.op_type == "ConstantOfShape" and np.prod(feeds[node.input[0]], dtype=float) > _MOST:
            return {}
        return evaluate(node, self._opsets, feeds)

"""Constants of a graph: their values, and where in the file each value is stored.

Exporters feed one BatchNormalization from an initializer and the next through ``Constant``,
``Identity``, ``Expand`` or ``CastLike`` nodes.  Whatever hangs on constants only has a value here;
it can be *rewritten* when one initializer (or ``Constant``) holds all its elements and nobody else
reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.errors import ModelError
from asr_onnx.graph.computed import evaluate, output_types, type_of, type_size
from asr_onnx.graph.stored import nbytes
from asr_onnx.graph.tensor_values import Held, held, is_in_file, opened, scratch
from asr_onnx.graph.wiring import RANDOM, Topology
from asr_onnx.limits import most_unpacked, size_text

_UNQUANTISED = "prune and repair before quantisation"
_SHAPE_ONLY = {"Shape": 0, "Size": 0, "CastLike": 1}  # op -> input whose values do not matter


@dataclass(frozen=True)
class Storage:
    """The initializer or ``Constant`` output ``name`` holding a value's elements.

    ``order`` is ``None`` when the elements lie in reading order, else ``value.ravel() ==
    stored.ravel()[order]``; ``shape`` and ``dtype`` are the stored array's.  ``in_file``: it is not
    in memory, and nor should its successor be.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    order: NDArray[np.int64] | None
    in_file: bool = False

    def pack(self, value: NDArray[np.generic]) -> Held:
        """Arrange a new value (as the node reads it) the way it is stored."""
        flat = np.empty(value.size, self.dtype)
        flat[slice(None) if self.order is None else self.order] = value.ravel().astype(self.dtype)
        packed = flat.reshape(self.shape)
        return scratch().put(packed) if self.in_file else packed


class Constants:
    """Values of the constants of one model, evaluated on demand and remembered."""

    def __init__(self, model: onnx.ModelProto, topology: Topology) -> None:
        self._topology = topology
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self._model = model
        self._values: dict[str, NDArray[np.generic] | None] = {}
        self._nodes: set[int] = set()  # those whose elements come from constants
        for index, node in enumerate(topology.nodes):
            random = node.op_type in RANDOM or topology.has_subgraph(index)
            if not random and all(self._is_constant(t) for t in _element_inputs(node)):
                self._nodes.add(index)

    @cached_property
    def _types(self) -> dict[str, int]:
        return _element_types(self._model)

    @cached_property
    def _most(self) -> int:
        return most_unpacked(sum(nbytes(t) for t in self._model.graph.initializer))

    def held(self, name: str) -> Held | None:
        """The tensor's value or where it lies, or ``None`` if it depends on the network's input."""
        tensor = self._topology.initializers.get(name)
        return held(tensor) if tensor and is_in_file(tensor) else self.value(name)

    def value(self, name: str) -> NDArray[np.generic] | None:
        """The tensor's value, or ``None`` when it depends on the network's input."""
        found = self._topology.initializers.get(name)
        if found and is_in_file(found):
            return opened(held(found))  # not to be remembered: it would stay in memory
        if name not in self._values:
            self._values[name] = self._evaluate(name, {})
        return self._values[name]

    def storage(self, name: str, reader: int) -> Storage | str:
        """Where to write a new value of ``name`` so that only node ``reader`` sees the change.

        Returns the reason, as a phrase, when there is no such place.
        """
        value = self.value(name)
        if value is None:
            return "is computed at run time"
        inner, leaves = self._ancestors(name)
        reason = "is computed from other constants"
        for root in leaves:
            stored = self.value(root)
            if stored is None or stored.size != value.size:
                continue
            if stored.dtype.kind != "f":
                if stored.ndim > 1:  # else it may be the shape of a Reshape
                    brain = stored.dtype.name == "bfloat16"
                    cure = "export it in float32 or float16" if brain else _UNQUANTISED
                    reason = f"is stored as {stored.dtype}: {cure}"
                continue
            order = self._order(name, root, stored)
            if order is None:
                continue
            others = self._other_readers(root, inner, reader)
            if others:
                return f"is also read by {others}"
            tensor = self._topology.initializers.get(root)
            in_file = tensor is not None and is_in_file(tensor)
            return Storage(root, stored.shape, stored.dtype, order if order.size else None, in_file)
        return reason

    def _order(self, name: str, root: str, stored: NDArray[np.generic]) -> NDArray[np.int64] | None:
        if name == root:
            return np.empty(0, np.int64)
        # Send element numbers through the subgraph: a mere rearrangement gives a permutation back.
        # They are negative and fractional, so that Relu, Abs, Clip or Round show.
        start = -0.25 - stored.size
        numbers = np.arange(stored.size) + start
        with np.errstate(all="ignore"):
            sent = self._evaluate(name, {root: numbers.reshape(stored.shape)})
        if sent is None or sent.dtype != numbers.dtype:
            return None
        order = np.argsort(np.argsort(sent.ravel()))
        if not np.array_equal(sent.ravel(), numbers[order]):
            return None
        value = self.value(name)
        same = value is not None and np.array_equal(
            value.ravel(), stored.ravel()[order].astype(value.dtype)
        )
        if not same:
            return None
        return order[:0] if np.array_equal(order, np.arange(order.size)) else order

    def _is_constant(self, tensor: str) -> bool:
        top = self._topology
        return tensor in top.initializers or top.producer.get(tensor, -1) in self._nodes

    def _evaluate(
        self, name: str, given: Mapping[str, NDArray[np.generic]]
    ) -> NDArray[np.generic] | None:
        """The value of ``name``, if other tensors had the values ``given``.

        Nodes are run one after the other: chains may be longer than Python's stack.
        """
        if not self._is_constant(name):
            return given.get(name)
        top = self._topology
        values: dict[str, NDArray[np.generic] | None] = dict(given)
        todo, needed = [name], set()
        while todo:
            tensor = todo.pop()
            if tensor in values:
                continue
            if tensor in top.initializers:
                values[tensor] = opened(held(top.initializers[tensor]))
            elif (index := top.producer[tensor]) not in needed:
                needed.add(index)
                todo += _element_inputs(top.nodes[index])
        for index in sorted(needed):
            values |= {k: v for k, v in self._run(index, values).items() if k not in given}
            if given and top.nodes[index].op_type in ("Cast", "CastLike"):
                # Element numbers must not be rounded.
                values[top.nodes[index].output[0]] = values[top.nodes[index].input[0]]
        return values[name]

    def _run(
        self, index: int, values: Mapping[str, NDArray[np.generic] | None]
    ) -> dict[str, NDArray[np.generic] | None]:
        """The outputs of a node by name, ``None`` for those that cannot be told."""
        node = self._topology.nodes[index]
        unknown: dict[str, NDArray[np.generic] | None] = dict.fromkeys(node.output)
        feeds = {}
        for source in _element_inputs(node):
            value = values[source]
            if value is None:
                return unknown
            feeds[source] = value
        if node.op_type == "CastLike":
            kind = self._types.get(node.input[1])
            if kind is None:
                return unknown
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
            feeds.setdefault(node.input[1], np.zeros(0, dtype))
        if not self._fits(node, feeds):
            return unknown  # a custom or unusual operator: not a constant we can vouch for
        return unknown | evaluate(node, self._opsets, feeds)

    def _fits(self, node: onnx.NodeProto, feeds: Mapping[str, NDArray[np.generic]]) -> bool:
        """Whether a node's outputs are known to be small enough to be computed."""
        types = {n: type_of(a) for n, a in feeds.items()}
        told = output_types(node, self._opsets, types, feeds)
        sizes = [type_size(kind) for kind in told.values()]
        if (largest := max((s or 0 for s in sizes), default=0)) > self._most:
            raise ModelError(
                f"{node.op_type} '{node.name or node.output[0]}' makes a constant of "
                f"{size_text(largest)}, more than {size_text(self._most)}: export the model again"
            )
        return bool(sizes) and None not in sizes

    def _ancestors(self, name: str) -> tuple[set[int], list[str]]:
        """Nodes and leaf tensors that the *elements* of a constant come from."""
        top, todo = self._topology, [name]
        nodes: set[int] = set()
        leaves: list[str] = []
        while todo:
            tensor = todo.pop()
            index = top.producer.get(tensor)
            if index is None or top.holds_tensor(index):
                if tensor not in leaves:
                    leaves.append(tensor)
                continue
            nodes.add(index)
            ignored = _SHAPE_ONLY.get(top.nodes[index].op_type)
            todo += [t for i, t in enumerate(top.nodes[index].input) if t and i != ignored]
        return nodes, leaves

    def _other_readers(self, root: str, inner: set[int], reader: int) -> str:
        """Who besides ``reader`` sees the elements of ``root``, as a phrase; empty when nobody."""
        top, todo = self._topology, [root]
        while todo:
            tensor = todo.pop()
            if tensor in top.outputs:
                return "the graph's output"
            for index in top.consumers.get(tensor, ()):
                node = top.nodes[index]
                ignored = _SHAPE_ONLY.get(node.op_type)
                reads = sum(t == tensor and i != ignored for i, t in enumerate(node.input))
                if not reads and tensor in node.input:
                    continue
                if index in inner:
                    todo += [t for t in node.output if t]
                elif index != reader or reads != 1:
                    return f"{node.op_type} '{node.name or node.output[0]}'"
        return ""


def _element_inputs(node: onnx.NodeProto) -> list[str]:
    """What a node's values depend on: of the second input of ``CastLike`` just the type counts."""
    return [t for i, t in enumerate(node.input) if t and (node.op_type, i) != ("CastLike", 1)]


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor that shape inference knows."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = model.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {v.name: v.type.tensor_type.elem_type for v in values if v.type.HasField("tensor_type")}
    return types | {t.name: t.data_type for t in model.graph.initializer}

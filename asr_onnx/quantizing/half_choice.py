"""Which nodes stay in float32 where the rest becomes float16, and why; from ranges on the data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray
from asr_onnx.data.batches import Batches
from asr_onnx.execution.session import Device
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.wiring import Topology, subgraphs
from asr_onnx.maths.float16 import (
    LARGEST,
    LIMIT,
    ROUNDING,
    SMALLEST_NORMAL,
    largest,
    lost,
    smallest,
)
from asr_onnx.parallel import Progress
from asr_onnx.quantizing.ranges import Passes

_STANDARD = ("", "ai.onnx")
_HALF, _WHOLE = "tensor(float16)", "tensor(float)"
# The input that must not become zero or lose its digits, by operator.
_DELICATE = {"Div": 1, "Reciprocal": 0, "Log": 0, "Sqrt": 0}
_MEANS = ("GlobalAveragePool", "ReduceMean")  # of what they add up they return a share
_SQUARES = ("InstanceNormalization", "LpNormalization", "MeanVarianceNormalization", "ReduceL2")
# Their first stage is float32 by ONNX's specification while ``stash_type`` says so.
_STASHED = ("LayerNormalization", "GroupNormalization", "RMSNormalization")
_BOUNDS = {"Clip": (1, 2)}  # numbers beyond float16's mean there what its largest does


@dataclass(frozen=True)
class Measured:
    """Magnitudes of a float32 tensor on the calibration data, and its elements in a batch.

    ``smallest`` is that of tensors that must not become zero.
    """

    largest: float = 0.0
    smallest: float = float("inf")
    elements: int = 0

    def with_batch(self, values: AnyArray, delicate: bool) -> Measured:
        least = smallest(values) if delicate else self.smallest
        return Measured(
            max(self.largest, largest(values)),
            min(self.smallest, least),
            max(self.elements, values.size),
        )


@dataclass(frozen=True)
class Plan:
    """A float32 network that is to become float16, but for ``kept``: reasons by node.

    Nodes go by their position in ``topology``; ``ranges`` are those of activations.
    """

    model: onnx.ModelProto
    topology: Topology
    ranges: Mapping[str, Measured]
    kept: dict[int, str] = field(default_factory=dict)

    @cached_property
    def floats(self) -> set[str]:
        """The tensors that are float32."""
        inputs = [v for v in self.model.graph.input if _is_float32(v)]
        stored = [t for t in self.model.graph.initializer if t.data_type == t.FLOAT]
        return {v.name for v in inputs} | {t.name for t in stored} | self.ranges.keys()

    @cached_property
    def constants(self) -> set[int]:
        """``Constant`` nodes: what they hold follows what reads it."""
        nodes = enumerate(self.topology.nodes)
        return {i for i, n in nodes if n.op_type == "Constant" and n.domain in _STANDARD}

    @cached_property
    def candidates(self) -> list[int]:
        """Nodes with something to become float16."""
        return [
            i
            for i, node in enumerate(self.topology.nodes)
            if i not in self.constants
            and self.floats.intersection([*node.output, *self.topology.reads(i)])
        ]

    @property
    def halves(self) -> list[int]:
        """The nodes that become float16."""
        return [i for i in self.candidates if i not in self.kept]

    def is_whole(self, index: int, place: int) -> bool:
        """Whether a node takes its input number ``place`` in float32."""
        node = self.topology.nodes[index]
        return index in self.kept or (node.op_type, place) == ("Resize", self._scales)

    @cached_property
    def _scales(self) -> int:
        return 1 if _opset(self.model, "") <= 10 else 2


def measured(
    model: onnx.ModelProto, batches: Batches, device: Device, progress: Progress | None = None
) -> dict[str, Measured]:
    """What float32 tensors the network's nodes make of the samples solved on, and its inputs."""
    topology = Topology(model.graph)
    made = [t for node in topology.nodes for t in node.output if t]
    only = np.dtype(np.float32)
    run = Passes(model, [*topology.inputs, *made], batches, device, progress, total=1, only=only)
    delicate, found = _delicate(topology), dict[str, Measured]()
    for tensor, values in run(0):
        if values.dtype == only:
            found[tensor] = found.get(tensor, Measured()).with_batch(values, tensor in delicate)
    return found


def plan(
    model: onnx.ModelProto, ranges: Mapping[str, Measured], exclude: str | None = None
) -> Plan:
    """What stays in float32, before anything is tried; also what ``exclude`` finds."""
    result = Plan(model, Topology(model.graph), ranges)
    constants = Constants(model, result.topology)
    reasons = _Reasons(result, constants, exclude)
    for index in result.candidates:
        if reason := reasons.of(index):
            result.kept[index] = reason
    for index, reason in reasons.upstream().items():
        result.kept.setdefault(index, reason)
    return result


class _Reasons:
    """Why a node has to stay in float32, as a phrase."""

    def __init__(self, plan: Plan, constants: Constants, exclude: str | None) -> None:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

        self._plan, self._constants, self._exclude = plan, constants, exclude
        self._top, self._ranges = plan.topology, plan.ranges
        self._left_out = frozenset(DEFAULT_OP_BLOCK_LIST)
        self._of_sizes = _of_sizes(plan.topology)
        self._delicate = _delicate(self._top)
        self._captured = {
            t
            for index, node in enumerate(self._top.nodes)
            if self._top.has_subgraph(index)
            for t in set(self._top.reads(index)) - set(node.input)
        }

    def of(self, index: int) -> str:
        """The reason; empty where there is none."""
        node = self._top.nodes[index]
        return (
            self._by_kind(index, node)
            or self._by_tensors(node)
            or self._by_sums(node)
            or self._by_weights(node)
        )

    def _by_kind(self, index: int, node: onnx.NodeProto) -> str:
        if any(True for _ in subgraphs(node)):
            return "has a body of its own"
        if self._captured.intersection(node.output):
            return "is read by the body of another node"
        if index in self._of_sizes:
            return "computes sizes or positions, not data"
        if node.op_type in self._left_out:
            return "left out by ONNX Runtime's converter"
        if set(node.input) & self._top.sparse.keys():
            return "reads a sparse tensor"
        if not self._takes_half(node):
            return "is not defined for float16"
        names = [node.name, *(t for t in node.input if t in self._top.initializers)]
        if self._exclude and any(re.search(self._exclude, name) for name in names):
            return "is excluded"
        return ""

    def _takes_half(self, node: onnx.NodeProto) -> bool:
        """Whether ONNX allows float16 wherever the node has float32."""
        domain = "" if node.domain in _STANDARD else node.domain
        try:
            version = _opset(self._plan.model, domain)
            schema = onnx.defs.get_schema(node.op_type, version, domain)
        except onnx.defs.SchemaError:
            return False
        allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
        sides = ((node.input, schema.inputs), (node.output, schema.outputs))
        for names, parameters in sides:
            for place, name in enumerate(names):
                if name not in self._plan.floats or not parameters:
                    continue
                kind = parameters[min(place, len(parameters) - 1)].type_str
                scales = (node.op_type, kind) == ("Resize", _WHOLE)
                if not scales and _HALF not in allowed.get(kind, {kind}):
                    return False
        return True

    def _by_tensors(self, node: onnx.NodeProto) -> str:
        for tensor in [*node.output, *node.input]:
            found = self._ranges.get(tensor)
            if found is None:
                continue
            if found.largest > LIMIT:
                return f"'{tensor}' reaches {found.largest:.3g} of float16's {LARGEST:g}"
            if tensor in self._delicate and found.smallest < SMALLEST_NORMAL:
                return f"'{tensor}', a divisor or the like, is as small as {found.smallest:.1g}"
        return ""

    def _by_sums(self, node: onnx.NodeProto) -> str:
        """What a node adds up inside and shows only a share or the root of."""
        if not node.input or not node.output or node.domain not in _STANDARD:
            return ""
        read, made = (self._ranges.get(t) for t in (node.input[0], node.output[0]))
        if read is None or made is None or not made.elements:
            return ""
        if node.op_type in _MEANS:
            total = made.largest * read.elements / made.elements
            return f"adds up to {total:.3g} before it divides" if total > LIMIT else ""
        stash = next((a.i for a in node.attribute if a.name == "stash_type"), 1)
        if node.op_type in _SQUARES or (node.op_type in _STASHED and stash != 1):
            square = max(read.largest, made.largest if node.op_type == "ReduceL2" else 0.0) ** 2
            return f"squares reach {square:.3g} inside" if square > LIMIT else ""
        return ""

    def _by_weights(self, node: onnx.NodeProto) -> str:
        for place, tensor in enumerate(node.input):
            bound = place in _BOUNDS.get(node.op_type, ())
            if bound or tensor not in self._plan.floats or not self._top.is_constant(tensor):
                continue
            value = self._constants.value(tensor)
            if value is None:
                continue
            if (most := largest(value)) > LIMIT:
                return f"weight '{tensor}' reaches {most:.3g} of float16's {LARGEST:g}"
            least = smallest(value)
            if place == _DELICATE.get(node.op_type) and least < SMALLEST_NORMAL:
                return f"weight '{tensor}', a divisor or the like, is as small as {least:.1g}"
            if value.ndim > 1 and (share := lost(value)) > 4 * ROUNDING:
                return f"weight '{tensor}' is so small that rounding takes {share:.1%} of it"
        return ""

    def upstream(self) -> dict[int, str]:
        """What leads to the scales of a Resize, which are float32 by ONNX's specification."""
        top, found = self._top, dict[int, str]()
        todo = [
            t
            for index, node in enumerate(top.nodes)
            for place, t in enumerate(node.input)
            if node.op_type == "Resize" and self._plan.is_whole(index, place)
        ]
        while todo:
            index = top.producer.get(todo.pop())
            if index is None or index in found or index not in self._plan.candidates:
                continue
            found[index] = "computes the scales of a Resize"
            todo += top.nodes[index].input
        return found


def _delicate(topology: Topology) -> set[str]:
    """Tensors that must not become zero or lose their digits."""
    return {
        node.input[place]
        for node in topology.nodes
        if (place := _DELICATE.get(node.op_type)) is not None and node.domain in _STANDARD
    }


def _of_sizes(topology: Topology) -> set[int]:
    """Nodes whose inputs are sizes and constants alone, but no constants themselves."""
    data, found = set(topology.inputs), set[int]()
    for index, node in enumerate(topology.nodes):
        if node.op_type in ("Shape", "Size") and node.domain in _STANDARD:
            continue
        if data.intersection(topology.reads(index)) or topology.has_subgraph(index):
            data.update(node.output)
        elif index not in topology.constant_nodes:
            found.add(index)
    return found


def _is_float32(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _opset(model: onnx.ModelProto, domain: str) -> int:
    """The version of a domain's operators that the model is written in."""
    same = _STANDARD if domain in _STANDARD else (domain,)
    return max((o.version for o in model.opset_import if o.domain in same), default=1)

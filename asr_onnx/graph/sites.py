"""Find what can be pruned and repaired, and say of everything else why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.errors import ModelError
from asr_onnx.graph.activations import Activation, activation_behind
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.operators import LINEAR, OPERATORS, Layout
from asr_onnx.graph.qdq import behind_pair
from asr_onnx.graph.records import Norm, Parameter, Site, Skipped
from asr_onnx.graph.wiring import Topology, subgraphs

_WIDEST_HEAD = 8192  # inputs; the moments of a wider one would take more than half a gigabyte
QUANTISED = ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger")


@dataclass(frozen=True)
class Survey:
    """The sites of a model in execution order, and the nodes left alone."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]


def find_sites(model: onnx.ModelProto, ops: Sequence[str] = ("Conv",)) -> Survey:
    """All nodes of the operators ``ops`` whose weight can be written, as ``survey_of`` has them.

    Raises ``ModelError`` when the model has none.
    """
    found = survey_of(model, ops)
    if not found.sites:
        raise ModelError(nothing_in(found, ops))
    return found


def nothing_in(found: Survey, ops: Sequence[str]) -> str:
    """What to tell of a model without sites: why its first node of interest is none."""
    first = found.skipped[0] if found.skipped else None
    why = f" ({first.op} '{first.name}': {first.reason})" if first else ""
    what = "convolution" if tuple(ops) == ("Conv",) else " or ".join(ops)
    return f"the model has no {what} that can be pruned{why}"


def survey_of(model: onnx.ModelProto, ops: Sequence[str] = ("Conv",)) -> Survey:
    """All nodes of the operators ``ops`` whose weight can be written; there may be none.

    Convolutions may be 1-, 2- or 3-D, strided, dilated, grouped or depthwise.

    Raises ``ModelError`` when a weight holds NaN or infinity, or when the constants of a
    BatchNormalization do.
    """
    topology = Topology(model.graph)
    finder = _Finder(topology, Constants(model, topology), ops)
    sites: list[Site] = []
    skipped: list[Skipped] = []
    for index, node in enumerate(topology.nodes):
        found = finder.look_at(index)
        finder.norm(index)  # refuses what is unsound
        if isinstance(found, Site):
            sites.append(found)
        elif found:
            skipped.append(Skipped(node.name or node.output[0], node.op_type, found))
        for body in subgraphs(node):
            skipped += _inside(body, f"inside a body of {node.op_type} '{node.name}'")
    for function in model.functions:
        skipped += _inside(function, f"inside local function '{function.name}': inline it first")
    return Survey(tuple(sites), tuple(skipped))


def with_heads(model: onnx.ModelProto, sites: Sequence[Site]) -> tuple[Site, ...]:
    """``sites`` and the other linear layers narrow enough to be re-fitted, in the model's order."""
    topology = Topology(model.graph)
    finder = _Finder(topology, Constants(model, topology), LINEAR)
    have = {s.index for s in sites}
    found = (finder.look_at(i) for i in range(len(topology.nodes)) if i not in have)
    heads = (s for s in found if isinstance(s, Site))
    narrow = [s for s in heads if s.weight.value.size // s.channels <= _WIDEST_HEAD]
    return tuple(sorted([*sites, *narrow], key=lambda s: s.index))


def find_norms(model: onnx.ModelProto) -> list[Norm]:
    """Inference-mode BatchNormalizations whose running mean and variance can be written."""
    topology = Topology(model.graph)
    finder = _Finder(topology, Constants(model, topology), ())
    norms = (finder.norm(i) for i in range(len(topology.nodes)))
    return [n for n in norms if n and n.mean.storage and n.var.storage]


def _inside(body: onnx.GraphProto | onnx.FunctionProto, reason: str) -> list[Skipped]:
    found = []
    for node in body.node:
        if node.op_type in ("Conv", *QUANTISED):
            found.append(Skipped(node.name or node.output[0], node.op_type, reason))
        for inner in subgraphs(node):
            found += _inside(inner, reason)
    return found


class _Finder:
    def __init__(self, topology: Topology, constants: Constants, ops: Sequence[str]) -> None:
        self._top = topology
        self._constants = constants
        self._ops = ops

    def look_at(self, index: int) -> Site | str:
        """The node's site, or the reason it is none; empty for a node of no interest."""
        node = self._top.nodes[index]
        if node.op_type in QUANTISED:
            return "quantised: prune and repair before quantisation"
        if node.op_type not in self._ops or node.domain not in ("", "ai.onnx"):
            return ""
        weight = self._parameter(node.input[1], index)
        if isinstance(weight, str):
            return f"weight '{node.input[1]}' {weight}"
        if self._top.is_constant(node.input[0]):
            return "its input is a constant"
        value = weight.value
        if not np.isfinite([value.min(initial=0), value.max(initial=0)]).all():
            raise ModelError(
                f"weight '{weight.name}' holds NaN or infinity: export the model again"
            )
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        operator = OPERATORS[node.op_type]
        if refused := operator.refuses(weight.value.ndim, attributes):
            return refused
        groups = 1 if operator.linear else attributes.get("group", 1)
        transposed = bool(attributes.get("transB", 0))
        channels = operator.channels(Layout(weight.value.shape, groups, transposed))
        bias = self._bias(index, channels)
        if isinstance(bias, str):
            return bias
        if any(self._is_training(i) for i in self._top.consumers.get(node.output[0], ())):
            return (
                "the BatchNormalization behind it is in training mode and would cancel a repair: "
                "export the model for inference (model.eval())"
            )
        norm = None if operator.linear else self._norm_after(node.output[0])
        if norm and norm.mean.value.size != channels:
            raise ModelError(
                f"BatchNormalization '{norm.node or norm.output}' is of {norm.mean.value.size} "
                f"channels, its input of {channels}: export the model again"
            )
        behind = norm.output if norm else node.output[0]
        carrier = bias if bias and bias.storage else None
        if operator.bias_behind:
            behind, carrier = self._bias_behind(behind, channels)
            if carrier is None:
                return "no Add of a constant follows that could take up the change of the mean"
        shortcut, total = self._added_to(behind)
        return Site(
            name=weight.name,
            node=node.name,
            op=node.op_type,
            index=index,
            input=node.input[0],
            output=node.output[0],
            weight=weight,
            bias=bias,
            norm=norm,
            groups=groups,
            channels=channels,
            axis=operator.axis,
            shortcut=shortcut,
            transposed=transposed,
            activation=self._activation(total, 0 if operator.linear else weight.value.ndim - 2),
            carrier=carrier,
        )

    def _bias(self, index: int, channels: int) -> Parameter | str | None:
        """The node's own bias, ``None`` without one, or why it cannot be repaired with it."""
        inputs = self._top.nodes[index].input
        if len(inputs) < 3 or not inputs[2]:
            return None
        found = self._parameter(inputs[2], index, need_storage=False)
        if isinstance(found, str):
            return f"bias '{inputs[2]}' {found}"
        return found if found.value.size == channels else f"bias '{found.name}' is broadcast"

    def _parameter(self, name: str, reader: int, need_storage: bool = True) -> Parameter | str:
        held = self._constants.held(name)
        if held is None:
            sparse = name in self._top.sparse
            return "is stored sparse: make it dense" if sparse else "is computed at run time"
        storage = self._constants.storage(name, reader)
        if isinstance(storage, str):
            return storage if need_storage else Parameter(name, held, None)
        return Parameter(name, held, storage)

    def _only_reader(self, tensor: str, op: str) -> int | None:
        """The node that alone reads ``tensor``, if it is an ``op``."""
        readers = self._top.consumers.get(tensor, [])
        if len(readers) != 1 or tensor in self._top.outputs:
            return None
        return readers[0] if self._top.nodes[readers[0]].op_type == op else None

    def _added_to(self, tensor: str) -> tuple[str | None, str]:
        """What ``tensor`` is added to and the sum, when that ``Add`` alone reads it or its pair."""
        added = behind_pair(self._top, tensor)
        index = self._only_reader(added, "Add")
        if index is None:
            return None, tensor
        node = self._top.nodes[index]
        others = [t for t in node.input if t != added]
        if len(others) != 1 or self._top.is_constant(others[0]):
            return None, tensor
        return others[0], node.output[0]

    def _activation(self, tensor: str, trailing: int) -> Activation | None:
        return activation_behind(self._top, tensor, trailing, self._constants.value)

    def _bias_behind(self, tensor: str, channels: int) -> tuple[str, Parameter | None]:
        """Output and constant of the ``Add`` that gives a ``MatMul`` its bias."""
        index = self._only_reader(tensor, "Add")
        if index is None:
            return tensor, None
        node = self._top.nodes[index]
        name = next((t for t in node.input if t != tensor), "")
        found = self._parameter(name, index) if name and self._top.is_constant(name) else ""
        if not isinstance(found, Parameter) or found.value.shape[-1:] != (channels,):
            return tensor, None
        return node.output[0], found if found.value.size == channels else None

    def _norm_after(self, output: str) -> Norm | None:
        index = self._only_reader(output, "BatchNormalization")
        norm = self.norm(index) if index is not None else None
        return norm if norm and self._top.nodes[index or 0].input[0] == output else None

    def _is_training(self, index: int) -> bool:
        """Whether the node is a BatchNormalization of the batch's own mean and variance.

        From opset 14 on an attribute says so, before that further outputs, as the specification has
        it.
        """
        node = self._top.nodes[index]
        said = any(a.name == "training_mode" and a.i for a in node.attribute)
        return node.op_type == "BatchNormalization" and (said or any(node.output[1:]))

    def norm(self, index: int) -> Norm | None:
        """The node as an inference-mode BatchNormalization of constants, if it is one."""
        node = self._top.nodes[index]
        if node.op_type != "BatchNormalization" or len(node.input) != 5:
            return None
        if node.domain not in ("", "ai.onnx"):
            return None
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if self._is_training(index) or not attributes.get("spatial", 1):
            return None
        found = [self._parameter(n, index, need_storage=False) for n in node.input[1:]]
        parameters = [p for p in found if isinstance(p, Parameter)]
        if len(parameters) != 4:
            return None
        scale, bias, mean, var = parameters
        epsilon = float(attributes.get("epsilon", 1e-5))
        return Norm(node.name, node.output[0], scale, bias, mean, var, epsilon)

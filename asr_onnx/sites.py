"""Find what can be pruned and repaired, and say of everything else why not."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.constants import Constants
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.topology import Topology, subgraphs
from asr_onnx.types import Norm, Parameter, Site, Skipped

QUANTISED = ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger")


@dataclass(frozen=True)
class Survey:
    """The sites of a model in execution order, and the nodes left alone."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]


def find_sites(model: onnx.ModelProto) -> Survey:
    """All convolutions (1-, 2-, 3-D, strided, dilated, grouped, depthwise) with a writable weight.

    Raises ``ModelError`` when the model has none, or when a weight holds NaN or infinity.
    """
    topology = Topology(model.graph)
    finder = _Finder(topology, Constants(model, topology))
    sites: list[Site] = []
    skipped: list[Skipped] = []
    for index, node in enumerate(topology.nodes):
        found = finder.look_at(index)
        if isinstance(found, Site):
            sites.append(found)
        elif found:
            skipped.append(Skipped(node.name or node.output[0], node.op_type, found))
        for body in subgraphs(node):
            skipped += _inside(body, f"inside a body of {node.op_type} '{node.name}'")
    for function in model.functions:
        skipped += _inside(function, f"inside local function '{function.name}': inline it first")
    if not sites:
        why = f" ({skipped[0].op} '{skipped[0].name}': {skipped[0].reason})" if skipped else ""
        raise ModelError(f"the model has no convolution that can be pruned{why}")
    return Survey(tuple(sites), tuple(skipped))


def find_norms(model: onnx.ModelProto) -> list[Norm]:
    """Inference-mode BatchNormalizations whose running mean and variance can be written."""
    topology = Topology(model.graph)
    finder = _Finder(topology, Constants(model, topology))
    norms = (finder.norm(i) for i in range(len(topology.nodes)))
    return [n for n in norms if n and n.mean.storage and n.var.storage]


def select(sites: tuple[Site, ...], include: str | None, exclude: str | None) -> tuple[Site, ...]:
    """Sites to prune: weight or node name found by ``include`` and not by ``exclude``.

    Raises ``UsageError`` for a broken pattern or when nothing is left.
    """
    try:
        wanted, unwanted = re.compile(include or ""), re.compile(exclude or r"(?!)")
    except re.error as error:
        raise UsageError(
            f"pattern '{error.pattern!s}' is not a regular expression: {error.msg}"
        ) from None
    chosen = tuple(
        s
        for s in sites
        if any(wanted.search(n) for n in (s.name, s.node))
        and not any(unwanted.search(n) for n in (s.name, s.node))
    )
    if not chosen:
        raise UsageError("--include/--exclude leave no convolution to prune")
    return chosen


def _inside(body: onnx.GraphProto | onnx.FunctionProto, reason: str) -> list[Skipped]:
    found = []
    for node in body.node:
        if node.op_type in ("Conv", *QUANTISED):
            found.append(Skipped(node.name or node.output[0], node.op_type, reason))
        for inner in subgraphs(node):
            found += _inside(inner, reason)
    return found


class _Finder:
    def __init__(self, topology: Topology, constants: Constants) -> None:
        self._top = topology
        self._constants = constants

    def look_at(self, index: int) -> Site | str:
        """The node's site, or the reason it is none; empty for a node of no interest."""
        node = self._top.nodes[index]
        if node.op_type in QUANTISED:
            return "quantised: prune and repair before quantisation"
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
            return ""
        weight = self._parameter(node.input[1], index)
        if isinstance(weight, str):
            return f"weight '{node.input[1]}' {weight}"
        if self._top.is_constant(node.input[0]):
            return "its input is a constant"
        if not np.isfinite(np.asarray(weight.value, np.float64)).all():
            raise ModelError(
                f"weight '{weight.name}' holds NaN or infinity: export the model again"
            )
        bias = None
        if len(node.input) > 2 and node.input[2]:
            found = self._parameter(node.input[2], index, need_storage=False)
            if isinstance(found, str):
                return f"bias '{node.input[2]}' {found}"
            bias = found
        norm = self._norm_after(node.output[0])
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
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
            channels=weight.value.shape[0],
            shortcut=self._added_to(norm.output if norm else node.output[0]),
        )

    def _parameter(self, name: str, reader: int, need_storage: bool = True) -> Parameter | str:
        value = self._constants.value(name)
        if value is None:
            return "is computed at run time"
        storage = self._constants.storage(name, reader)
        if isinstance(storage, str):
            return storage if need_storage else Parameter(name, value, None)
        return Parameter(name, value, storage)

    def _added_to(self, tensor: str) -> str | None:
        """The other operand of the ``Add`` that alone reads ``tensor``, unless it is a constant."""
        readers = self._top.consumers.get(tensor, [])
        if len(readers) != 1 or tensor in self._top.outputs:
            return None
        node = self._top.nodes[readers[0]]
        others = [t for t in node.input if t != tensor]
        if node.op_type != "Add" or len(others) != 1 or self._top.is_constant(others[0]):
            return None
        return str(others[0])

    def _norm_after(self, output: str) -> Norm | None:
        readers = self._top.consumers.get(output, [])
        if len(readers) != 1 or output in self._top.outputs:
            return None
        norm = self.norm(readers[0])
        return norm if norm and self._top.nodes[readers[0]].input[0] == output else None

    def norm(self, index: int) -> Norm | None:
        """The node as an inference-mode BatchNormalization of constants, if it is one."""
        node = self._top.nodes[index]
        if node.op_type != "BatchNormalization" or len(node.input) != 5:
            return None
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("training_mode", 0):
            return None
        found = [self._parameter(n, index, need_storage=False) for n in node.input[1:]]
        parameters = [p for p in found if isinstance(p, Parameter)]
        if len(parameters) != 4:
            return None
        scale, bias, mean, var = parameters
        epsilon = float(attributes.get("epsilon", 1e-5))
        return Norm(node.name, node.output[0], scale, bias, mean, var, epsilon)

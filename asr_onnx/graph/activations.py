"""The activation function behind a tensor, whatever nodes it is made of.

SiLU is a Sigmoid and a Mul, Hard-Swish is a HardSigmoid and a Mul or five nodes, a learned affine
map may stand in front: what counts is that one tensor comes out, each of whose elements depends on
one element of the tensor in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asr_onnx.arrays import AnyArray
from asr_onnx.graph.wiring import Topology

RELU = "Relu"
_CURVED = frozenset(
    {
        "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
        "LeakyRelu", "Max", "Min", "Mish", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus",
        "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
_STRAIGHT = frozenset({"Add", "Div", "Identity", "Mul", "Neg", "Sub"})
_MOST = 16  # nodes


@dataclass(frozen=True)
class Activation:
    """The ``nodes`` that make ``output`` from ``input``; ``relu``: a Relu and nothing else."""

    nodes: tuple[int, ...]
    input: str
    output: str
    relu: bool = False


def activation_behind(
    topology: Topology, tensor: str, trailing: int, value: Callable[[str], AnyArray | None]
) -> Activation | None:
    """The activation that ``tensor`` goes through, if nothing on the way is read by others.

    ``trailing`` is the number of axes behind the channels', ``value`` gives a constant's value.
    """
    if tensor in topology.outputs:
        return None
    inside: set[str] = {tensor}
    nodes: list[int] = []
    found: tuple[list[int], str] | None = None
    for index in _followers(topology, tensor):
        node = topology.nodes[index]
        if node.op_type not in _CURVED | _STRAIGHT or len(nodes) == _MOST:
            continue
        others = [t for t in node.input if t and t not in inside]
        if len(others) == len(node.input) or not all(
            topology.is_constant(t) and _fits(value(t), trailing) for t in others
        ):
            continue
        nodes.append(index)
        inside.add(node.output[0])
        exits = [t for t in inside if t in topology.outputs or _read_outside(topology, t, nodes)]
        if len(exits) == 1 and exits[0] != tensor:
            found = [*nodes], exits[0]
    if found is None or not any(topology.nodes[i].op_type in _CURVED for i in found[0]):
        return None
    made, output = found
    relu = len(made) == 1 and topology.nodes[made[0]].op_type == RELU
    return Activation(tuple(topology.ancestors([output], {tensor})), tensor, output, relu)


def _followers(topology: Topology, tensor: str) -> list[int]:
    """Nodes that may belong to it, in the graph's order."""
    found: set[int] = set()
    todo = [tensor]
    while todo and len(found) < 4 * _MOST:
        for index in topology.consumers.get(todo.pop(), ()):
            node = topology.nodes[index]
            if index not in found and node.op_type in _CURVED | _STRAIGHT:
                found.add(index)
                todo.append(node.output[0])
    return sorted(found)


def _read_outside(topology: Topology, tensor: str, nodes: list[int]) -> bool:
    return any(i not in nodes for i in topology.consumers.get(tensor, ()))


def _fits(constant: AnyArray | None, trailing: int) -> bool:
    """Whether a constant is one number, or one for each channel."""
    if constant is None:
        return False
    axis = constant.ndim - 1 - trailing
    return constant.size == 1 or (axis >= 0 and constant.shape[axis] == constant.size)

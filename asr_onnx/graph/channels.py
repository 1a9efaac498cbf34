"""Which channels of a network stand or fall together, and which have to stay.

Each tensor's channels have labels; operators tie them (``channel_rules``), shortcuts above all.
What is tied is an *atom*, the least that can be removed.  After DepGraph (Fang et al. 2023, arXiv
2301.12900), with single channels in place of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from asr_onnx.arrays import IntArray
from asr_onnx.graph.channel_rules import FOLLOWS, JOINS, RULES, unknown
from asr_onnx.graph.channel_walk import Cut, Walk, label
from asr_onnx.graph.inputs import Shape
from asr_onnx.graph.labels import Labels
from asr_onnx.graph.shapes import Shapes


@dataclass(frozen=True)
class Group:
    """Atoms that the same products make; ``reason`` says why they stay whole, empty if they do not.

    Nodes go by their first output.  ``depthwise`` are convolutions that get narrower with the
    group.
    """

    atoms: tuple[int, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    depthwise: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Channels:
    """The atom of each channel of a graph.

    ``inputs`` and ``outputs`` have, by a product's output, the atom of each channel of its data
    (Cin,), those of all groups, and of each channel it makes (C,); ``depthwise`` the same for
    convolutions that mix nothing.  Products are Conv, ConvTranspose, Gemm and MatMul with a
    constant weight.  ``reasons``: why an atom stays whole, for those that do.  ``tensors`` are the
    atoms along an axis of each tensor, ``cuts`` the constants that get narrower, ``shapes`` and
    ``sizes`` (of the inputs) those that the atoms were found with.
    """

    inputs: Mapping[str, IntArray]
    outputs: Mapping[str, IntArray]
    depthwise: Mapping[str, IntArray]
    reasons: Mapping[int, str]
    groups: tuple[Group, ...]
    tensors: Mapping[str, Labels]
    cuts: tuple[Cut, ...]
    shapes: Shapes
    sizes: Mapping[str, Shape]

    def __post_init__(self) -> None:
        if self.inputs.keys() != self.outputs.keys():
            raise ValueError("each product has inputs and outputs")


def find_channels(model: onnx.ModelProto, shapes: Shapes) -> Channels:
    """The atoms of a model's channels; ``shapes`` are ``Shapes.of`` it.

    Dimensions that are not told matter only where a node moves elements across them.
    """
    walk = Walk(model, shapes)
    for index, node in enumerate(walk.topology.nodes):
        if index in walk.topology.constant_nodes:
            continue
        first = node.input[0] if node.input else ""
        if walk.chains.take(node, walk.shape(first), walk.labels.get(first)):
            continue
        standard = node.domain in ("", "ai.onnx") and not walk.topology.has_subgraph(index)
        rule = RULES.get(node.op_type, unknown) if standard else unknown
        reads = walk.topology.reads(index)
        if reason := rule(walk, node):
            walk.close(reads, f"{label(node)} {reason}")
        if node.op_type not in JOINS:  # only their first input is data that is handed on
            walk.close(node.input[1:], f"{label(node)} reads them as a parameter")
        follows = FOLLOWS.get(node.op_type, len(node.input))
        followed = node.input[follows : follows + 1] if node.output[0] in walk.labels else ()
        walk.close_origins(set(reads) - {*followed}, f"{label(node)} reads their number")
    walk.close(walk.topology.outputs, "they are an output of the model")
    walk.close_origins(walk.topology.outputs, "their number is an output of the model")
    return _channels(walk)


def _channels(walk: Walk) -> Channels:
    roots = walk.atoms.roots
    tensors = {t: replace(found, ids=roots(found.ids)) for t, found in walk.labels.items()}
    for tensor, found in tensors.items():
        if (found.ids == found.ids[0]).all():
            walk.atoms.close(found.ids[:1], f"'{tensor}' has no other")
    products = [walk.inputs, walk.outputs, walk.depthwise]
    inputs, outputs, depthwise = ({n: roots(ids) for n, ids in p.items()} for p in products)
    reasons = walk.atoms.reasons
    return Channels(
        inputs,
        outputs,
        depthwise,
        reasons,
        _groups(inputs, outputs, depthwise, reasons),
        tensors,
        tuple(replace(c, ids=roots(c.ids)) for c in walk.cuts),
        walk.shapes,
        {t: walk.shapes.shapes[t] for t in walk.topology.inputs},
    )


def _groups(
    inputs: Mapping[str, IntArray],
    outputs: Mapping[str, IntArray],
    depthwise: Mapping[str, IntArray],
    reasons: Mapping[int, str],
) -> tuple[Group, ...]:
    makers, readers, keepers = (_nodes(p) for p in (outputs, inputs, depthwise))
    members: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for atom in sorted(makers.keys() | readers.keys()):
        key = (tuple(makers.get(atom, ())), reasons.get(atom, ""))
        members.setdefault(key, []).append(atom)
    return tuple(
        Group(
            tuple(atoms),
            made_by,
            tuple(dict.fromkeys(n for a in atoms for n in readers.get(a, ()))),
            tuple(dict.fromkeys(n for a in atoms for n in keepers.get(a, ()))),
            reason,
        )
        for (made_by, reason), atoms in members.items()
    )


def _nodes(products: Mapping[str, IntArray]) -> dict[int, list[str]]:
    """By atom the products that have it."""
    found: dict[int, list[str]] = {}
    for name, ids in products.items():
        for atom in np.unique(ids).tolist():
            found.setdefault(atom, []).append(name)
    return found

"""What nodes have to be told anew when channels go: sizes, bounds, indices, shapes, groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, IntArray, Mask
from asr_onnx.errors import ModelError
from asr_onnx.graph.channel_walk import attributes, label
from asr_onnx.graph.inputs import Shape
from asr_onnx.graph.labels import Labels


@dataclass(frozen=True)
class Told:
    """A new value of the input ``index`` of a node, or of its attribute ``name`` if it has that."""

    index: int
    name: str
    value: AnyArray


@dataclass(frozen=True)
class Before:
    """Labels and ranks of tensors, values of constants, and the atoms that go."""

    tensors: Mapping[str, Labels]
    shapes: Mapping[str, Shape]
    value: Callable[[str], AnyArray | None]
    gone: IntArray

    def stays(self, labels: Labels) -> Mask:
        """Which of the positions stay."""
        return ~np.isin(labels.ids, self.gone)

    def given(self, node: onnx.NodeProto, index: int, name: str) -> AnyArray | None:
        """An attribute or a constant input; ``None`` where it is not given or computed."""
        found = attributes(node).get(name)
        if found is not None:
            return np.asarray(found)
        given = len(node.input) > index >= 0 and node.input[index]
        return self.value(given) if given else None

    def axes(self, node: onnx.NodeProto, index: int, count: int) -> list[int]:
        """The axes an operator works on, counted from the front; the first ones by default."""
        axes, rank = self.given(node, index, "axes"), len(self.shapes[node.input[0]])
        return [int(a) % rank for a in (range(count) if axes is None else axes.ravel())]

    def axis(self, node: onnx.NodeProto) -> int:
        """The one axis an operator works along, counted from the front."""
        return int(attributes(node).get("axis", 0)) % len(self.shapes[node.input[0]])


def told(node: onnx.NodeProto, before: Before) -> list[Told]:
    """What changes in a node of which channels go; empty for most."""
    rule = _RULES.get(node.op_type)
    touched = (before.tensors.get(t) for t in [*node.input[:1], *node.output[:1]])
    if rule is None or all(t is None or before.stays(t).all() for t in touched):
        return []
    return rule(node, before)


def _group(node: onnx.NodeProto, before: Before) -> list[Told]:
    """A depthwise convolution has as many groups as channels."""
    read = before.tensors.get(node.input[0])
    if read is None or attributes(node).get("group", 1) != read.ids.size:
        return []
    return [Told(-1, "group", np.asarray(before.stays(read).sum()))]


def _split(node: onnx.NodeProto, before: Before) -> list[Told]:
    read, count = before.tensors.get(node.input[0]), len(node.output)
    if read is None or before.axis(node) != read.axis:
        return []
    sizes = before.given(node, 1, "split")
    equal = sizes is None
    if sizes is None:
        each = -(-read.ids.size // count)
        sizes = np.array([min(each, read.ids.size - each * i) for i in range(count)])
    bounds = np.cumsum(sizes)[:-1]
    counts = [part.sum() for part in np.split(before.stays(read), bounds)]
    if equal and len(set(counts)) == 1:
        return []
    return [Told(1, "split", np.asarray(counts, np.int64))]


def _slice(node: onnx.NodeProto, before: Before) -> list[Told]:
    read = before.tensors.get(node.input[0])
    starts, ends = before.given(node, 1, "starts"), before.given(node, 2, "ends")
    if read is None or starts is None or ends is None:
        return []
    axes, steps = before.axes(node, 3, starts.size), before.given(node, 4, "steps")
    if read.axis not in axes:
        return []
    number = axes.index(read.axis)
    step = int(steps[number]) if steps is not None else 1
    keep = before.stays(read)
    taken = range(read.ids.size)[slice(int(starts[number]), int(ends[number]), step)]
    where = np.cumsum(keep) - 1
    wanted = [int(where[p]) for p in taken if keep[p]]
    if wanted == list(range(int(keep.sum()))[slice(int(starts[number]), int(ends[number]), step)]):
        return []
    new = range(wanted[0], wanted[-1] + (1 if step > 0 else -1), step)
    if list(new) != wanted:
        raise ModelError(f"{label(node)} cannot take the channels that stay: they lie unevenly")
    starts, ends = starts.copy(), ends.copy()
    starts[number] = new.start
    ends[number] = new.stop if new.stop >= 0 else -int(keep.sum()) - 1
    return [Told(1, "starts", starts), Told(2, "ends", ends)]


def _gather(node: onnx.NodeProto, before: Before) -> list[Told]:
    read, made = before.tensors.get(node.input[0]), before.tensors.get(node.output[0])
    indices, axis = before.value(node.input[1]), before.axis(node)
    if read is None or indices is None or axis != read.axis:
        return []
    if made is not None and 0 <= made.axis - axis < indices.ndim:
        indices = np.compress(before.stays(made), indices, made.axis - axis)
    where = np.cumsum(before.stays(read)) - 1
    return [Told(1, "indices", where[indices].astype(indices.dtype))]


def _shape(index: int, name: str) -> Callable[[onnx.NodeProto, Before], list[Told]]:
    """For a shape that a node is given, in which the number of channels has its place."""

    def rule(node: onnx.NodeProto, before: Before) -> list[Told]:
        made, shape = before.tensors.get(node.output[0]), before.given(node, index, name)
        if made is None or shape is None:
            return []
        rank = len(before.shapes[node.output[0]])
        axes = list(range(rank - shape.size, rank))  # of Expand, which may name the last ones
        if node.op_type == "Resize":
            axes = before.axes(node, -1, rank)
        if made.axis not in axes or shape[place := axes.index(made.axis)] <= (
            node.op_type == "Expand"
        ):
            return []
        shape = shape.copy()
        shape[place] = before.stays(made).sum()
        return [Told(index, name, shape)]

    return rule


def _pad(node: onnx.NodeProto, before: Before) -> list[Told]:
    read, made = before.tensors.get(node.input[0]), before.tensors.get(node.output[0])
    pads = before.given(node, 1, "pads")
    if read is None or made is None or pads is None:
        return []
    half = pads.size // 2
    if made.axis not in (axes := before.axes(node, 3, half)):
        return []
    number = axes.index(made.axis)
    pads = pads.copy()
    first, last = int(pads[number]), int(pads[number + half])
    stays, had = before.stays(made), before.stays(read)
    pads[number] = stays[:first].sum() if first >= 0 else -had[:-first].sum()
    pads[number + half] = (
        stays[stays.size - last :].sum() if last >= 0 else -had[had.size + last :].sum()
    )
    return [Told(1, "pads", pads)]


_RULES: dict[str, Callable[[onnx.NodeProto, Before], list[Told]]] = {
    "Conv": _group,
    "ConvTranspose": _group,
    "Expand": _shape(1, "shape"),
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _shape(1, "shape"),
    "Resize": _shape(3, "sizes"),
    "Slice": _slice,
    "Split": _split,
}

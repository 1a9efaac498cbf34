"""Remove channels from a model: the same nodes and names, with narrower constants."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from asr_onnx.arrays import AnyArray, IntArray, Mask
from asr_onnx.errors import ModelError
from asr_onnx.graph.channel_walk import label
from asr_onnx.graph.channels import Channels
from asr_onnx.graph.constants import Constants, Storage
from asr_onnx.graph.narrow_nodes import Before, Told, told
from asr_onnx.graph.shapes import Shapes
from asr_onnx.graph.tensor_values import (
    LARGE,
    VALUE_FIELDS,
    Held,
    InFile,
    is_in_file,
    opened,
    scratch,
)
from asr_onnx.graph.validate import check_graph
from asr_onnx.graph.wiring import Topology

_FIELDS = (*VALUE_FIELDS, "int64_data", "uint64_data")
_SPLIT_INPUT = 13  # the opset from which on Split is given its sizes as an input
Place = tuple[str, int]  # first output of a node, position among its inputs


def narrow(model: onnx.ModelProto, channels: Channels, gone: Collection[int]) -> onnx.ModelProto:
    """A copy of the model without the atoms ``gone``, which are of ``find_channels`` of it.

    A constant that others read as it was gets a copy of a new name, and so does one that is
    computed otherwise than by moving the elements of one stored tensor; nodes that only served to
    compute it are left out.
    Raises ``ValueError`` for atoms that have to stay, and ``ModelError`` for a tensor that would
    have no channel left and for a model that is not sound without them.
    """
    atoms = np.array(sorted(gone), np.int64)
    if closed := [a for a in atoms.tolist() if a in channels.reasons]:
        raise ValueError(f"atom {closed[0]} has to stay: {channels.reasons[closed[0]]}")
    for tensor, labels in channels.tensors.items():
        if np.isin(labels.ids, atoms).all():
            raise ModelError(f"'{tensor}' would have no channel left: keep one of them")
    if not atoms.size:
        return _copied(model)
    copies: frozenset[str] = frozenset()
    while True:  # few: until no constant is found to be computed otherwise than was thought
        work = _Work(model, channels, atoms, copies)
        if not (wrong := work.wrong()):
            break
        copies |= wrong
    _check(work.result, channels, atoms)
    return work.result


def sparing(channels: Channels, gone: Collection[int]) -> set[int]:
    """``gone`` without the closed atoms, and without one of each tensor that would be left empty.

    Of an empty tensor the first atom stays.
    """
    found = {a for a in gone if a not in channels.reasons}
    for labels in channels.tensors.values():
        if found.issuperset(labels.ids.tolist()):
            found.discard(int(labels.ids[0]))
    return found


@dataclass(frozen=True)
class _Change:
    """What a node is to read in place of the constant ``tensor``; equal ``key``, equal value.

    ``masks`` has the positions that stay by axis, ``value`` a value of another kind.
    """

    tensor: str
    masks: Mapping[int, Mask]
    value: AnyArray | None = None

    @property
    def key(self) -> object:
        told = None if self.value is None else (self.value.dtype, self.value.tobytes())
        return told, tuple((axis, mask.tobytes()) for axis, mask in sorted(self.masks.items()))

    def of(self, old: AnyArray) -> AnyArray:
        """The new value."""
        if self.value is not None:
            return self.value
        for axis, mask in self.masks.items():
            old = np.compress(mask, old, axis)
        return old


class _Work:
    """One narrowing; constants in ``copies`` are copied and not rewritten where they are stored."""

    def __init__(
        self, model: onnx.ModelProto, channels: Channels, gone: IntArray, copies: frozenset[str]
    ) -> None:
        self.result = _copied(model)
        self._old = Topology(model.graph)
        self._constants = Constants(model, self._old)
        self._copies = copies
        versions = (o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self._opset = next(versions, 1)
        self._nodes = {next(iter(n.output), ""): n for n in self.result.graph.node}
        self._initializers = {t.name: t for t in self.result.graph.initializer}
        self._taken = {*self._old.initializers, *self._old.consumers, *self._old.producer}
        self._moved: dict[str, _Change] = {}  # constants expected to follow what is stored
        self._changes = self._found(channels, gone)
        self._apply()
        self._tidy(channels, gone)

    def wrong(self) -> frozenset[str]:
        """Computed constants that did not become what they should, with what is stored."""
        constants = Constants(self.result, Topology(self.result.graph))
        found = set()
        for name, change in self._moved.items():
            old, new = self._constants.value(name), constants.value(name)
            if old is None or new is None or not np.array_equal(change.of(old), new):
                found.add(name)
        return frozenset(found)

    def _found(self, channels: Channels, gone: IntArray) -> dict[Place, _Change]:
        changes: dict[Place, _Change] = {}
        for cut in channels.cuts:
            keep, place = ~np.isin(cut.ids, gone), (cut.node, cut.input)
            if not keep.all():
                tensor = self._nodes[cut.node].input[cut.input]
                known = changes.get(place, _Change(tensor, {}))
                changes[place] = replace(known, masks={**known.masks, cut.axis: keep})
        before = Before(channels.tensors, channels.shapes.shapes, self._constants.value, gone)
        for output, node in self._nodes.items():
            for new in told(node, before):
                if not _set_attribute(node, new, self._opset):
                    place = (output, new.index)
                    changes[place] = _Change(self._input(node, new.index), {}, new.value)
        return changes

    def _input(self, node: onnx.NodeProto, index: int) -> str:
        node.input.extend([""] * (index + 1 - len(node.input)))
        return node.input[index]

    def _apply(self) -> None:
        """Write the changes, of each constant one after the other."""
        tensors: dict[str, dict[Place, _Change]] = {}
        for place, change in self._changes.items():
            tensors.setdefault(change.tensor, {})[place] = change
        for tensor, changes in tensors.items():
            place, change = next(iter(changes.items()))
            everyone = tensor and self._readers(tensor) == changes.keys()
            alike = len({c.key for c in changes.values()}) == 1
            if not (alike and everyone and self._in_place(tensor, place, change)):
                made: dict[object, str] = {}
                for where, change in changes.items():
                    name = made.get(change.key) or self._copy(where, change)
                    self._nodes[where[0]].input[where[1]] = made[change.key] = name

    def _readers(self, tensor: str) -> set[Place]:
        """All places where the tensor is read; a position of -1 stands for bodies and outputs."""
        found = {(t, -1) for t in self._old.outputs if t == tensor}
        for index in self._old.consumers.get(tensor, ()):
            node = self._old.nodes[index]
            at = [i for i, t in enumerate(node.input) if t == tensor] or [-1]
            found |= {(node.output[0], i) for i in at}
        return found

    def _in_place(self, tensor: str, place: Place, change: _Change) -> bool:
        """Whether the change could be made where the constant is stored."""
        holder = self._holder(tensor)
        if holder is not None:
            _write(holder, change.of(self._value(tensor)))
            return True
        if tensor in self._copies or change.value is not None:
            return False
        storage = self._constants.storage(tensor, self._old.producer[place[0]])
        if isinstance(storage, str) or (holder := self._holder(storage.name)) is None:
            return False
        masks = _stored_masks(storage, change, self._value(tensor).shape)
        if masks is None:
            return False
        stored = _Change(storage.name, masks)
        _write(holder, stored.of(self._value(storage.name)))
        self._moved[tensor] = change
        return True

    def _holder(self, tensor: str) -> onnx.TensorProto | None:
        """The tensor in the new model that holds a constant, if it is stored as it is read."""
        if tensor in self._initializers:
            return self._initializers[tensor]
        node = self._nodes.get(tensor)
        if node is None or node.op_type != "Constant":
            return None
        if node.attribute[0].name != "value":  # a list or a number
            value = numpy_helper.from_array(self._value(tensor))
            node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", value))
        return node.attribute[0].t

    def _value(self, tensor: str) -> AnyArray:
        value = self._constants.value(tensor)
        assert value is not None, tensor
        return value

    def _copy(self, place: Place, change: _Change) -> str:
        """A new constant; its name."""
        old = change.tensor or f"{place[0]}_{place[1]}"
        name = f"{old}_narrow"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        value = change.value if change.value is not None else change.of(self._value(change.tensor))
        tensor = self.result.graph.initializer.add(name=name)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        old_tensor = self._old.initializers.get(change.tensor)
        in_file = old_tensor is not None and is_in_file(old_tensor)
        _write(tensor, _laid(value) if in_file else value)
        if any(i.name in self._old.initializers for i in self.result.graph.input):  # IR 3
            self.result.graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.data_type, value.shape)
            )
        return name

    def _tidy(self, channels: Channels, gone: IntArray) -> None:
        """Leave out constants that nobody reads any more, and mend the recorded shapes."""
        graph = self.result.graph
        self._drop_unread(graph)
        shapes = {t.name: t.dims for t in graph.initializer}
        for info in list(graph.value_info):
            if self._old.is_constant(info.name):
                graph.value_info.remove(info)
            elif labels := channels.tensors.get(info.name):
                dims = info.type.tensor_type.shape.dim
                if labels.axis < len(dims) and np.isin(labels.ids, gone).any():
                    dims[labels.axis].dim_value = int((~np.isin(labels.ids, gone)).sum())
        for info in graph.input:
            if info.name in shapes:
                kind = info.type.tensor_type.elem_type
                made = onnx.helper.make_tensor_type_proto(kind, list(shapes[info.name]))
                info.type.CopyFrom(made)

    def _drop_unread(self, graph: onnx.GraphProto) -> None:
        unread = {c.tensor for c in self._changes.values()} - {""}
        while unread:
            read = Topology(graph)
            idle = {t for t in unread if t not in read.consumers and t not in read.outputs}
            unread = set()
            for node in [n for n in graph.node if n.output and idle.issuperset(n.output)]:
                unread |= {*node.input} - {""}
                graph.node.remove(node)
            stored = idle & self._old.initializers.keys()
            for tensor in [t for t in graph.initializer if t.name in stored]:
                graph.initializer.remove(tensor)
            for info in [i for i in graph.input if i.name in stored]:
                graph.input.remove(info)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def _set_attribute(node: onnx.NodeProto, new: Told, opset: int) -> bool:
    """Whether what is new is an attribute of the node, which is then set."""
    for number, attribute in enumerate(node.attribute):
        if attribute.name == "num_outputs" and new.name == "split":
            del node.attribute[number]  # equal parts no more
            return False
        if attribute.name == new.name:
            value = new.value.tolist()
            attribute.CopyFrom(onnx.helper.make_attribute(new.name, value))
            return True
    if new.name == "split" and opset < _SPLIT_INPUT:
        node.attribute.append(onnx.helper.make_attribute("split", new.value.tolist()))
        return True
    return False


def _stored_masks(
    storage: Storage, change: _Change, shape: tuple[int, ...]
) -> dict[int, Mask] | None:
    """The positions that stay along each axis of what is stored, if it is cut along axes, too."""
    keep = np.ones(shape, bool)
    for axis, mask in change.masks.items():
        keep &= mask.reshape(-1, *[1] * (len(shape) - 1 - axis))
    flat = np.empty(keep.size, bool)
    flat[slice(None) if storage.order is None else storage.order] = keep.ravel()
    stored = flat.reshape(storage.shape)
    rest = [tuple(a for a in range(stored.ndim) if a != axis) for axis in range(stored.ndim)]
    masks = {axis: np.asarray(stored.any(others)) for axis, others in enumerate(rest)}
    whole = np.ix_(*masks.values()) if masks else ()
    if not masks or not stored[whole].all():
        return None
    return {axis: mask for axis, mask in masks.items() if not mask.all()}


def _laid(value: AnyArray) -> Held:
    """A value whose tensor lay in a file: in one, too, if it is still large."""
    return scratch().put(value) if value.nbytes >= LARGE else value


def _write(tensor: onnx.TensorProto, value: Held) -> None:
    """Let a tensor have another value, of any shape; in a file, if it was there."""
    if is_in_file(tensor) and not isinstance(value, InFile):
        value = _laid(value)
    array = opened(value)
    del tensor.dims[:]
    tensor.dims.extend(array.shape)
    if isinstance(value, InFile):
        value.refer(tensor)
        return
    for field in _FIELDS:
        tensor.ClearField(field)
    made = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape))
    tensor.data_type, tensor.raw_data = made.data_type, made.raw_data


def _check(result: onnx.ModelProto, channels: Channels, gone: IntArray) -> None:
    """Refuse a model that is not sound, or whose tensors are not as wide as they should be."""
    check_graph(result, Path(f"{result.graph.name} (narrower)"))
    shapes = Shapes.of(result, channels.sizes).shapes
    makers = {t: n for n in result.graph.node for t in n.output}
    for tensor, labels in channels.tensors.items():
        wanted = int((~np.isin(labels.ids, gone)).sum())
        before, after = channels.shapes.shapes[tensor], shapes.get(tensor, ())
        told = before[labels.axis] is not None
        wide = after[labels.axis] if len(after) == len(before) else None
        if wide != wanted and (told or wide is not None):
            raise ModelError(
                f"{label(makers[tensor])} would make {wide} channels and not {wanted}: "
                "this is a defect, please report it with the model"
            )

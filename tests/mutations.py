"""Damage to valid inputs: seeded mutations of bytes, texts and models for tests and fuzzers.

Every mutator takes a generator and a valid input and returns a damaged copy; the same seed gives
the same damage.  ``mutated_bytes`` is for any file, ``mutated_text`` for CSV and JSON, and
``mutated_model`` for what a byte that is flipped hardly ever reaches: a proto that is well formed
and wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

Rng = np.random.Generator

_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**62, 2**63 - 1, -(2**63))
_TEXTS = (
    "", "x", "-1", "1e400", "NaN", "Infinity", "null", "99999999999999999999", "\x00", "\ufeff",
    '"', ",", "{", "[" * 5000, "'" * 3, "../x", "é", "\n", "9" * 5000,
)  # fmt: skip
_OPS = (
    "Identity", "Relu", "Conv", "ConvTranspose", "Add", "Reshape", "Constant", "Cast", "Gemm",
    "BatchNormalization", "Flatten", "ConstantOfShape", "Expand", "Tile", "If", "Unknown", "",
)  # fmt: skip


def mutated_bytes(rng: Rng, data: bytes) -> bytes:
    """One to three damages: bits flipped, bytes overwritten, cut, inserted, removed, repeated."""
    for _ in range(rng.integers(1, 4)):
        data = _pick(rng, _BYTES)(rng, data)
    return data


def mutated_text(rng: Rng, data: bytes) -> bytes:
    """Damage to CSV, JSON and the like: a word is replaced by an awkward one, or bytes change."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, data)
    start, stop = _span(rng, data, 12)
    return data[:start] + _pick(rng, _TEXTS).encode() + data[stop:]


def mutated_model(rng: Rng, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one to three structural damages: to wiring, nodes, attributes, tensors, types."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for _ in range(rng.integers(1, 4)):
        _pick(rng, _MODELS)(rng, result)
    return result


def _pick(rng: Rng, items):
    return items[int(rng.integers(len(items)))]


def _span(rng: Rng, data: bytes, longest: int) -> tuple[int, int]:
    start = int(rng.integers(len(data) + 1))
    return start, min(len(data), start + int(rng.integers(longest + 1)))


def _flip_bits(rng: Rng, data: bytes) -> bytes:
    if not data:
        return data
    damaged = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 9)):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _overwrite(rng: Rng, data: bytes) -> bytes:
    start, stop = _span(rng, data, 8)
    filler = _pick(rng, (b"\x00", b"\xff", b"\x7f", b"\x80"))
    return data[:start] + filler * (stop - start) + data[stop:]


def _truncate(rng: Rng, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _insert(rng: Rng, data: bytes) -> bytes:
    start, _ = _span(rng, data, 0)
    return data[:start] + rng.bytes(int(rng.integers(1, 17))) + data[start:]


def _remove(rng: Rng, data: bytes) -> bytes:
    start, stop = _span(rng, data, 64)
    return data[:start] + data[stop:]


def _repeat(rng: Rng, data: bytes) -> bytes:
    start, stop = _span(rng, data, 64)
    return data[:stop] + data[start:stop] * int(rng.integers(1, 4)) + data[stop:]


_BYTES: tuple[Callable[[Rng, bytes], bytes], ...] = (
    _flip_bits, _overwrite, _truncate, _insert, _remove, _repeat,
)  # fmt: skip


def _node(rng: Rng, model: onnx.ModelProto) -> onnx.NodeProto:
    return _pick(rng, model.graph.node) if model.graph.node else model.graph.node.add()


def _name(rng: Rng, model: onnx.ModelProto) -> str:
    """The name of some tensor, or of none."""
    graph = model.graph
    names = [t for n in graph.node for t in [*n.input, *n.output]]
    names += [t.name for t in [*graph.initializer, *graph.input, *graph.output]]
    return _pick(rng, [*names, "", "nowhere"])


def _drop_input(rng: Rng, model: onnx.ModelProto) -> None:
    node = _node(rng, model)
    if node.input:
        del node.input[int(rng.integers(len(node.input))) :]


def _rewire(rng: Rng, model: onnx.ModelProto) -> None:
    node = _node(rng, model)
    side = _pick(rng, (node.input, node.output))
    if side:
        side[int(rng.integers(len(side)))] = _name(rng, model)


def _add_input(rng: Rng, model: onnx.ModelProto) -> None:
    node = _node(rng, model)
    _pick(rng, (node.input, node.output)).append(_name(rng, model))


def _swap_nodes(rng: Rng, model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in rng.permutation(len(nodes)))


def _drop_node(rng: Rng, model: onnx.ModelProto) -> None:
    if model.graph.node:
        del model.graph.node[int(rng.integers(len(model.graph.node)))]


def _repeat_node(rng: Rng, model: onnx.ModelProto) -> None:
    model.graph.node.add().CopyFrom(_node(rng, model))


def _other_op(rng: Rng, model: onnx.ModelProto) -> None:
    node = _node(rng, model)
    node.op_type = _pick(rng, _OPS)
    node.domain = _pick(rng, ("", "", "", "ai.onnx", "custom"))


def _other_attribute(rng: Rng, model: onnx.ModelProto) -> None:
    """A value of an attribute changes, or its length, its type, or there is one more."""
    node = _node(rng, model)
    known = ("group", "strides", "pads", "dilations", "kernel_shape", "auto_pad", "epsilon", "axis")
    if not node.attribute or rng.random() < 0.3:
        node.attribute.add().name = _pick(rng, known)
    attribute = _pick(rng, node.attribute)
    number = _pick(rng, _NUMBERS)
    what = int(rng.integers(5))
    if what == 0:
        attribute.type, attribute.i = AttributeProto.INT, number
    elif what == 1:
        attribute.type = AttributeProto.INTS
        if attribute.ints and rng.random() < 0.7:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = number
        else:
            attribute.ints.extend([number] * int(rng.integers(4)))
    elif what == 2:
        attribute.type, attribute.f = AttributeProto.FLOAT, _pick(rng, (float("nan"), -1.0, 1e30))
    elif what == 3:
        attribute.type, attribute.s = (
            AttributeProto.STRING,
            _pick(rng, (b"", b"SAME_UPPER", b"\xff")),
        )
    else:
        attribute.type = _pick(rng, AttributeProto.AttributeType.values())


def _tensor(rng: Rng, model: onnx.ModelProto) -> TensorProto:
    attributes = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    found = [*model.graph.initializer, *attributes]
    return _pick(rng, found) if found else model.graph.initializer.add()


def _other_dims(rng: Rng, model: onnx.ModelProto) -> None:
    dims = _tensor(rng, model).dims
    what = int(rng.integers(4))
    if what == 0 and dims:
        dims[int(rng.integers(len(dims)))] = _pick(rng, _NUMBERS)
    elif what == 1 and dims:
        del dims[int(rng.integers(len(dims)))]
    elif what == 2:
        dims.append(_pick(rng, _NUMBERS))
    else:
        dims[:] = [dims[i] for i in rng.permutation(len(dims))]


def _other_type(rng: Rng, model: onnx.ModelProto) -> None:
    _tensor(rng, model).data_type = int(rng.integers(-1, 30))


def _other_data(rng: Rng, model: onnx.ModelProto) -> None:
    tensor = _tensor(rng, model)
    what = int(rng.integers(4))
    if what == 0:
        tensor.raw_data = mutated_bytes(rng, tensor.raw_data)
    elif what == 1:
        tensor.float_data.append(float(rng.normal()))
    elif what == 2:
        tensor.name = _name(rng, model)
    else:
        tensor.data_location = TensorProto.EXTERNAL
        place = _pick(rng, ("", "x\x00y", "../../etc/passwd", "/dev/zero", "none.bin", "."))
        for key, value in (("location", place), ("offset", str(_pick(rng, _NUMBERS)))):
            tensor.external_data.add(key=key, value=value)


def _other_value(rng: Rng, model: onnx.ModelProto) -> None:
    """The type or the shape of an input or output."""
    graph = model.graph
    values = [*graph.input, *graph.output]
    if not values:
        return
    kind = _pick(rng, values).type.tensor_type
    what = int(rng.integers(4))
    if what == 0:
        kind.elem_type = int(rng.integers(-1, 30))
    elif what == 1 and kind.shape.dim:
        _pick(rng, kind.shape.dim).dim_value = _pick(rng, _NUMBERS)
    elif what == 2:
        kind.shape.dim.add().dim_value = _pick(rng, _NUMBERS)
    else:
        kind.ClearField("shape")


def _other_header(rng: Rng, model: onnx.ModelProto) -> None:
    what = int(rng.integers(4))
    if what == 0:
        model.ir_version = int(rng.integers(-1, 20))
    elif what == 1 and model.opset_import:
        _pick(rng, model.opset_import).version = int(rng.integers(-1, 40))
    elif what == 2:
        del model.opset_import[:]
    elif model.graph.initializer:
        del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def _bomb(rng: Rng, model: onnx.ModelProto) -> None:
    """A node that makes some gigabytes of a few bytes, in the place of a tensor."""
    graph = model.graph
    graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([30000, 30000, int(rng.integers(1, 99))]), "bomb")
    )
    output = graph.node[0].input[-1] if graph.node and graph.node[0].input else "bombed"
    for tensor in graph.initializer:
        if tensor.name == output:
            tensor.name += "_before"
    graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["bomb"], [output]))


_MODELS: tuple[Callable[[Rng, onnx.ModelProto], None], ...] = (
    _drop_input, _rewire, _add_input, _swap_nodes, _drop_node, _repeat_node, _other_op,
    _other_attribute, _other_attribute, _other_dims, _other_type, _other_data, _other_value,
    _other_header, _bomb,
)  # fmt: skip

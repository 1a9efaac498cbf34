"""A network in float16: by ONNX Runtime's converter, or rounded like it but computed in float32.

ONNX Runtime computes most of float16 on the CPU in float32, where nothing overflows; what an engine
would make of a network shows in the one that rounds each tensor (``rounded``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from asr_onnx.errors import ModelError
from asr_onnx.graph.idle_nodes import replace
from asr_onnx.graph.model_file import fresh
from asr_onnx.graph.tensor_values import held, is_in_file, is_large, opened, scratch
from asr_onnx.graph.wiring import in_order, reads
from asr_onnx.maths.float16 import SMALLEST
from asr_onnx.quantizing.half_choice import Plan

_TO_HALF, _TO_WHOLE = "_cast_to_fp16", "_cast_to_fp32"  # what the converter calls its tensors
_INPUT, _OUTPUT = "graph_input_cast_", "graph_output_cast_"


def rounded(plan: Plan, whole: Iterable[int] = ()) -> onnx.ModelProto:
    """The network computed in float32, each float16 tensor rounded; ``whole``: further float32."""
    exact = {*plan.kept, *plan.constants, *whole}
    topology, result = plan.topology, _copy(plan)
    nodes: list[onnx.NodeProto] = []
    seen: set[str] = set()

    def pair(name: str, to: str) -> None:
        nodes.append(helper.make_node("Cast", [name], [f"{to}//16"], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", [f"{to}//16"], [to], to=TensorProto.FLOAT))

    for index, node in enumerate(result.graph.node):
        if index in exact or index not in plan.candidates:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            maker = topology.producer.get(name)
            halved = maker is not None and maker not in exact
            if name not in plan.floats or halved or plan.is_whole(index, place):
                continue
            half = f"{name}//half"
            if name not in seen:
                seen.add(name)
                pair(name, half)
            node.input[place] = half
        made = [n for n in node.output if n in plan.floats]
        node.output[:] = [f"{n}//raw" if n in made else n for n in node.output]
        nodes.append(node)
        for name in made:
            pair(f"{name}//raw", name)
    replace(result.graph.node, nodes)
    return result


def converted(plan: Plan, float32_io: bool = True) -> tuple[onnx.ModelProto, int]:
    """The network in float16, and how many weights were below the smallest number and became it.

    Names, metadata, and what stays in float32 are as they were; zeros stay zeros.
    Raises ``ModelError`` for a model with names that the converter uses.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    result = _copy(plan)
    graph = result.graph
    _check_names(graph)
    names = [node.name for node in graph.node]
    for number, node in enumerate(graph.node):  # by which it is told what to leave alone
        node.name = f"#{number}"
    floats = set(plan.floats)
    kept = {f"#{index}" for index in plan.kept} | _apart(graph, plan, floats)
    _as_tensors(graph)
    mine = {node.name for node in graph.node}
    stored = {t.name: _emptied(t) for t in graph.initializer if t.data_type == t.FLOAT}
    listed = [v for v in graph.input if v.name in {t.name for t in graph.initializer}]
    replace(graph.input, [v for v in graph.input if v.name not in stored])
    infos = list(graph.value_info)
    replace(graph.value_info, [_float(name) for name in sorted(floats - set(_ends(graph)))])
    result = convert_float_to_float16(
        result,
        keep_io_types=float32_io,
        disable_shape_infer=True,  # it knows less than what was measured, and goes by files
        op_block_list=[],
        node_block_list=sorted(kept),
    )
    graph = result.graph
    _with_todays_names(graph, mine)
    _without_detours(graph, mine)
    replace(graph.node, in_order(graph.node))
    whole = {t for n in graph.node if n.name in kept for t in n.output}
    tiny = sum(_filled(t, stored[t.name]) for t in graph.initializer if t.name in stored)
    for node in graph.node:
        number = int(node.name[1:]) if node.name in mine else len(names)
        node.name = names[number] if number < len(names) else node.output[0]
        if not node.name:
            node.ClearField("name")
    kinds = {t.name: t.data_type for t in graph.initializer}
    graph.input.extend(_of_kind(v, kinds[v.name]) for v in listed if v.name in stored)
    half = floats - whole - set(_ends(graph))
    replace(graph.value_info, [_of_kind(v, TensorProto.FLOAT16) if v.name in half else v
                               for v in infos])  # fmt: skip
    return result, tiny


def _copy(plan: Plan) -> onnx.ModelProto:
    """A copy of the model, its nodes in the plan's order."""
    result = onnx.ModelProto()
    result.CopyFrom(plan.model)
    replace(result.graph.node, [_same(n) for n in plan.topology.nodes])
    return result


def _same(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _ends(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (v.name for v in (*graph.input, *graph.output))
    yield from (t.name for t in graph.initializer)


def _float(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _of_kind(value: onnx.ValueInfoProto, kind: int) -> onnx.ValueInfoProto:
    value.type.tensor_type.elem_type = kind
    return value


def _check_names(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        for name in (*node.input, *node.output):
            if name.endswith((_TO_HALF, _TO_WHOLE)) or name.startswith((_INPUT, _OUTPUT)):
                raise ModelError(
                    f"tensor '{name}' is called like those of a conversion to float16: give the "
                    "float32 model it was made from"
                )


def _apart(graph: onnx.GraphProto, plan: Plan, floats: set[str]) -> set[str]:
    """Copies of constants for what becomes float16 where others read them in float32.

    Returns names of ``Constant`` nodes that stay float32.  Copies join the ``floats``.
    """
    whole, half = dict[str, bool](), dict[str, list[tuple[onnx.NodeProto, int]]]()
    for index, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if plan.is_whole(index, place):
                whole[name] = True
            else:
                half.setdefault(name, []).append((node, place))
        for name in set(reads(node)) - set(node.input):
            whole[name] = True
    stays, copies = set[str](), list[onnx.NodeProto]()
    holders = {t.name: t for t in graph.initializer if t.data_type == t.FLOAT}
    makers = {n.output[0]: n for i, n in enumerate(graph.node) if i in plan.constants}
    taken = {*_ends(graph), *(t for n in graph.node for t in n.output)}
    for name in [n for n in whole if n in holders or n in makers]:
        if name in makers:
            stays.add(makers[name].name)
        if name not in half:
            continue
        copy = fresh(f"{name}_float16", taken)
        for node, place in half[name]:
            node.input[place] = copy
        if name in makers:
            copies.append(_same(makers[name]))
            copies[-1].output[0] = copy
        else:
            tensor = graph.initializer.add()
            tensor.CopyFrom(holders[name])
            tensor.name = copy
            if any(v.name == name for v in graph.input):  # IR 3 lists initializers as inputs
                graph.input.add().CopyFrom(next(v for v in graph.input if v.name == name))
                graph.input[-1].name = copy
        floats.add(copy)
    for copied in copies:
        copied.name = f"#{len(graph.node)}"
        graph.node.append(copied)
    return stays


def _as_tensors(graph: onnx.GraphProto) -> None:
    """Numbers and lists in ``Constant`` nodes as tensors: the converter overlooks them."""
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name in ("value_float", "value_floats"):
                one = attribute.name == "value_float"
                value = np.asarray(attribute.f if one else list(attribute.floats), np.float32)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))


def _emptied(tensor: TensorProto) -> TensorProto:
    """Take the values out of an initializer, wherever they lie; what it was."""
    whole = TensorProto()
    whole.CopyFrom(tensor)
    tensor.Clear()
    tensor.name, tensor.data_type = whole.name, TensorProto.FLOAT
    tensor.dims.append(0)
    tensor.raw_data = b""
    return whole


def _filled(tensor: TensorProto, whole: TensorProto) -> int:
    """Give an initializer its values back, in the type that it has now; how many were too small."""
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(whole)
        return 0
    from onnxruntime.transformers.float16 import convert_np_to_float16

    value = opened(held(whole))
    half = np.asarray(convert_np_to_float16(value.reshape(-1)), np.float16).reshape(value.shape)
    tensor.CopyFrom(numpy_helper.from_array(half, whole.name))
    tensor.doc_string = whole.doc_string
    if is_in_file(whole) and is_large(tensor):
        scratch().put(half).refer(tensor)
    return int(np.count_nonzero((value != 0) & (np.abs(value) < SMALLEST)))


def _with_todays_names(graph: onnx.GraphProto, mine: set[str]) -> None:
    """Call casts as the converter does now; that of ONNX Runtime 1.21 goes by nodes' names."""
    casts = [n for n in graph.node if n.name not in mine]
    names: dict[str, str] = {}
    for cast in casts:
        source, out = cast.input[0], cast.output[0]
        if out.startswith("#") and "_input_cast_" in out:
            names[out] = source + _TO_WHOLE
        elif source.startswith("#") and "_output_cast_" in source:
            names[source] = out + _TO_HALF
    for node in graph.node if names else ():
        node.input[:] = [names.get(t, t) for t in node.input]
        node.output[:] = [names.get(t, t) for t in node.output]


def _without_detours(graph: onnx.GraphProto, mine: set[str]) -> None:
    """Mend what the converter does around nodes that stay float32.

    It casts their outputs to float16, and back for the next of them, which is where numbers that do
    not fit would be lost; and it makes the cast of a tensor anew for each that reads it.
    Tensors that stay float32 keep their names, casts of them go by ``_float16`` and ``_float32``.
    """
    ends = {v.name for v in graph.output}
    nodes = [n for n in graph.node if n.name in mine]
    casts = {n.output[0]: n for n in graph.node if n.name not in mine}  # each once
    source = {out: cast.input[0] for out, cast in casts.items() if cast.attribute[0].i != 1}
    to_whole = {out: cast.input[0] for out, cast in casts.items() if out not in source}
    new = {out: source[t] for out, t in to_whole.items() if t in source}
    outputs = {new.pop(out): out for out in list(new) if out in ends}  # they keep their name
    told = {half: out for out, half in to_whole.items() if out in ends and half not in source}
    new |= {out: told[t] for out, t in to_whole.items() if t in told and out not in ends}
    taken = {*_ends(graph), *(t for n in nodes for t in (*n.output, *reads(n)))} - casts.keys()
    new = {out: outputs.get(t, t) for out, t in new.items()} | outputs
    gone = {out for out in casts if out in new or out in outputs.values()}
    read = {new.get(t, t) for n in nodes for t in reads(n)} | ends
    read |= {casts[out].input[0] for out in to_whole if out not in gone}
    gone |= {out for out in source if out not in read}
    stay = [cast for out, cast in casts.items() if out not in gone]
    names = _names(source, to_whole, outputs, gone, ends, taken)

    def renamed(tensor: str) -> str:
        tensor = new.get(tensor, tensor)
        return names.get(tensor, tensor)

    for node in [*nodes, *stay]:
        node.input[:] = map(renamed, node.input)
        node.output[:] = map(renamed, node.output)
    replace(graph.node, [*nodes, *stay])


def _names(
    source: Mapping[str, str],
    to_whole: Mapping[str, str],
    outputs: Mapping[str, str],
    gone: set[str],
    ends: set[str],
    taken: set[str],
) -> dict[str, str]:
    """Names of the tensors around casts, by the converter's."""
    found: dict[str, str] = {}
    for out, whole in source.items():
        if whole.endswith(_TO_HALF) and out not in ends:
            name = outputs.get(whole, out)
            found[whole] = name
            if out not in gone:
                found[out] = fresh(f"{name}_float16", taken)
        elif whole.endswith(_TO_HALF):
            found[whole] = fresh(f"{out}_float32", taken)
        elif out not in gone:
            found[out] = fresh(f"{whole}_float16", taken)
    for out, half in to_whole.items():
        if out in ends and half.startswith(_OUTPUT):
            found.setdefault(half, fresh(f"{out}_float16", taken))
        elif out not in gone:
            found.setdefault(out, fresh(f"{half}_float32", taken))
    return found

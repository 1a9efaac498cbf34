"""A model as the quantizer takes it: the same function, told more simply."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from asr_onnx.errors import ModelError
from asr_onnx.graph.constants import Constants
from asr_onnx.graph.fold_norms import fold_norms
from asr_onnx.graph.idle_nodes import replace, tensors_read, without_idle
from asr_onnx.graph.tensor_values import is_in_file
from asr_onnx.graph.wiring import Topology
from asr_onnx.quantizing.placement import place

OPSET = 13  # the first with a scale for each channel
_IR = 7  # that of opset 13
_ASYMMETRIC = 10  # the last opset in which Resize and Upsample knew no other coordinates


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of opset 13 or later: norms folded, each product's weight an initializer of its own.

    Raises ``ModelError`` for an opset that cannot be raised to one that has scales per channel.
    """
    result = onnx.ModelProto()
    result.CopyFrom(fold_norms(_with_opset(model)))
    result.ir_version = max(result.ir_version, _IR)
    graph = result.graph
    stored = {t.name for t in graph.initializer}  # IR 3 lists them as inputs
    replace(graph.input, [i for i in graph.input if i.name not in stored])
    before = tensors_read(graph)
    topology = Topology(graph)
    constants = Constants(result, topology)
    for product in place(result).products:
        node, name = topology.nodes[product.index], product.weight
        tensor = topology.initializers.get(name)
        alone = len(topology.consumers[name]) == 1 and list(node.input).count(name) == 1
        if alone and name not in topology.outputs:
            if tensor is not None and not is_in_file(tensor):
                continue
            made = name
        else:
            made = f"{name}//{node.output[0]}"
            node.input[1] = made
        value = constants.value(name)
        assert value is not None, "products have constant weights"
        weight = numpy_helper.from_array(np.ascontiguousarray(value), made)
        if tensor is not None and made == name:
            tensor.CopyFrom(weight)
            continue
        if made == name:
            maker = topology.nodes[topology.producer[name]]
            maker.output[list(maker.output).index(name)] = f"{name}//computed"
        graph.initializer.append(weight)
    without_idle(graph, before)
    return result


def _with_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = opset(model)
    if version >= OPSET:
        return model
    cure = f"export it with opset {OPSET} or later"
    if model.functions:
        raise ModelError(
            f"the model has opset {version} and local functions, int8 needs {OPSET}: {cure}"
        )
    try:
        result = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # its exceptions share no base class
        raise ModelError(
            f"the model has opset {version}, int8 needs {OPSET}, and onnx cannot convert it "
            f"({str(error).splitlines()[0]}): {cure}"
        ) from None
    for node in result.graph.node if version <= _ASYMMETRIC else ():
        told = {a.name for a in node.attribute}
        if node.op_type == "Resize" and "coordinate_transformation_mode" not in told:
            for name, value in (
                ("coordinate_transformation_mode", "asymmetric"),
                ("nearest_mode", "floor"),
            ):
                node.attribute.append(onnx.helper.make_attribute(name, value))
    return result

"""A network with integers where an engine wants them, ready to be walked and repaired.

ONNX Runtime's own quantizer puts the pairs of Q and DQ in; where they go (``placement``) and the
ranges they stand for are told to it.  Weights that are repaired are float again until they are
rounded, layer by layer; the others keep the integers that it rounded them to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, FloatArray
from asr_onnx.errors import ModelError
from asr_onnx.graph.idle_nodes import replace
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.qdq import (
    DEQUANTIZE,
    QUANTIZE,
    StoredIntegers,
    in_float,
    left_undone,
    stored_integers,
)
from asr_onnx.graph.records import Patch, Site
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.graph.wiring import Topology, in_order
from asr_onnx.maths.rounding import nearest
from asr_onnx.quantizing.placement import Placement
from asr_onnx.quantizing.targets import Target
from asr_onnx.solvers.integers import Integers


@dataclass(frozen=True)
class Quantized:
    """The network with pairs, and what is walked instead: node for node the same.

    ``model`` has all its weights in integers.  In ``walked`` those of the sites are float, and it
    is repaired after ``dense``, in which no pair does anything.  ``weights`` says by the site's
    name where its integers lie in ``model``.  ``products``, by their outputs, are those in
    integers, ``activations`` the tensors that go through a pair.
    """

    model: onnx.ModelProto
    walked: onnx.ModelProto
    dense: onnx.ModelProto
    weights: Mapping[str, StoredIntegers]
    target: Target
    products: tuple[str, ...]
    activations: tuple[str, ...]

    def integers(self, site: Site) -> Integers | None:
        """What a site's weights become; ``None`` where they stay float32."""
        if site.name not in self.weights:
            return None
        return Integers(self.target.limit, shared=site.op == "ConvTranspose" and site.groups > 1)

    def stored(self, site: Site, rows: FloatArray, scales: FloatArray) -> Patch:
        """The patch of ``model`` for a site's ``rows`` (G, R, K), integers times ``scales`` (G, R).

        A grouped ConvTranspose has one scale for a channel of all groups.
        Raises ``ModelError``, which is this tool's fault, if an engine would make other weights.
        """
        place = self.weights[site.name]
        numbers = np.rint(rows / scales[:, :, None]).astype(self.target.weight_type)
        integers = self.integers(site)
        assert integers
        scale = (scales[0] if integers.shared else scales.reshape(-1)).astype(np.float32)
        made = numbers.astype(np.float32) * scales.astype(np.float32)[:, :, None]
        if not np.array_equal(made, rows.astype(np.float32)):
            raise ModelError(
                f"the integers of '{site.label}' are not its weights: nothing is written; please "
                "report this model"
            )
        return Patch({place.integers: from_rows(site, numbers), place.scale: scale})

    def with_integers(self, walked: Patch, integers: Patch) -> onnx.ModelProto:
        """The repaired model, from a patch of ``walked`` and those that ``stored`` made."""
        values = {n: v for n, v in walked.values.items() if n not in self.weights}
        return apply(self.model, Patch({**values, **integers.values}, walked.biases))


def plainly_rounded(site: Site, weight: AnyArray, integers: Integers) -> AnyArray:
    """A site's weight with each of its elements rounded by itself, the largest to the limit."""
    rows = np.asarray(to_rows(site, weight), np.float64)
    largest = np.abs(rows).max(axis=2)
    scale = np.where(largest > 0, largest, 1.0) / integers.limit
    if integers.shared:
        scale = np.broadcast_to(scale.max(axis=0), scale.shape)
    return from_rows(site, nearest(rows, scale, integers.limit)).astype(weight.dtype)


def quantized(
    model: onnx.ModelProto,
    dense: onnx.ModelProto,
    sites: Sequence[Site],
    placement: Placement,
    ranges: Mapping[str, tuple[float, float]],
    target: Target,
) -> Quantized:
    """The ``model``, which is ``simplified``, with pairs, and what is walked to repair it.

    ``dense`` is the same graph.  ``sites`` are those whose weights are repaired, ``ranges`` those
    of the placement's activations.
    """
    result = _with_pairs(model, placement, ranges, target)
    stored = stored_integers(result)
    makers = {n.output[0]: n for n in result.graph.node}
    nodes = Topology(model.graph).nodes
    made = {p.weight: makers[nodes[p.index].output[0]].input[1] for p in placement.products}
    repaired = [s.name for s in sites if s.name in made]
    mine = {t.name: t for t in model.graph.initializer}
    walked = in_float(result, {made[name]: mine[name] for name in repaired})
    theirs = {t.name: t for t in dense.graph.initializer}
    others = {made[n]: theirs[n] for n in made if n not in repaired}
    twin = left_undone(walked, others)
    for tensor in twin.graph.initializer:
        if tensor.name in theirs:
            tensor.CopyFrom(theirs[tensor.name])
    return Quantized(
        model=result,
        walked=walked,
        dense=twin,
        weights={n: stored[made[n]] for n in repaired},
        target=target,
        products=tuple(nodes[p.index].output[0] for p in placement.products),
        activations=placement.tensors,
    )


def _check_names(model: onnx.ModelProto, placement: Placement) -> None:
    """Raise ``ModelError`` for a name that ONNX Runtime's quantizer would give a second time."""
    graph = model.graph
    tensors = {t.name for t in graph.initializer} | {i.name for i in graph.input}
    tensors |= {t for n in graph.node for t in n.output}
    nodes = {n.name for n in graph.node}
    pairs = (QUANTIZE, DEQUANTIZE)
    for name in (*placement.tensors, *(p.weight for p in placement.products)):
        made = {f"{name}_{end}" for end in ("quantized", "scale", "zero_point")}
        made |= {f"{name}_{op}_Output" for op in pairs}
        taken = made & tensors or {f"{name}_{op}" for op in pairs} & nodes
        if taken:
            raise ModelError(
                f"the name '{min(taken)}' is that of what int8 adds to '{name}': rename it in the "
                "model"
            )


def _with_pairs(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, tuple[float, float]],
    target: Target,
) -> onnx.ModelProto:
    """The model as ONNX Runtime's quantizer writes it; header and metadata stay the model's."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    _check_names(model, placement)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Else it infers shapes, by way of files; of tensors all that it needs is told to it here.
    copy.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    kinds = {kind.name.lower()[1:]: kind for kind in QuantType}
    grid = target.activations
    ends = {t: (np.float32(low), np.float32(high)) for t, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=target.limit < 127,
        weight_qType=kinds[target.weight_type.name],
        activation_qType=kinds[target.activation_type.name],
        tensors_range=TensorsData(CalibrationMethod.MinMax, ends),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=[],
        extra_options={
            "ActivationSymmetric": grid.symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    floats = onnx.TensorProto.FLOAT
    for tensor in placement.tensors:
        quantizer.value_infos.setdefault(
            tensor, onnx.helper.make_tensor_value_info(tensor, floats, None)
        )
        quantizer.quantize_activation_tensor(tensor)
    for product in placement.products:
        quantizer.quantize_weight_tensor_per_channel(product.weight, product.axis)
    found = quantizer.quantize_model()
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.CopyFrom(found.graph)
    replace(result.graph.node, in_order(found.graph.node))
    return result

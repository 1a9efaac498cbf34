"""What is repaired of a model, and the model with integers in it where these are asked for."""

from __future__ import annotations

import onnx

from asr_onnx.data.batches import Batches
from asr_onnx.errors import ModelError
from asr_onnx.execution.session import Device
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Site
from asr_onnx.graph.sites import Survey, find_sites, with_heads
from asr_onnx.maths.clipping import RANGES
from asr_onnx.options import OPS, PruneOptions, RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.quantizing.placement import place
from asr_onnx.quantizing.quantized import Quantized, quantized, simplified
from asr_onnx.quantizing.ranges import ranges
from asr_onnx.quantizing.targets import TARGETS


def survey(proto: onnx.ModelProto, options: PruneOptions) -> tuple[Survey, tuple[Site, ...]]:
    """What can be pruned under some options, and all that is repaired with it.

    Where channels go, whatever reads them is repaired, and what is rounded to integers is.
    """
    heads, ops = options.narrows, options.ops
    if isinstance(options, RepairOptions):
        heads = heads or options.reconstruct or options.quantizes
    if options.narrows or (isinstance(options, RepairOptions) and options.quantizes):
        ops = tuple(op for op in OPS if op in options.ops or not OPERATORS[op].linear)
    found = find_sites(proto, ops)
    return found, with_heads(proto, found.sites) if heads else found.sites


def in_integers(
    proto: onnx.ModelProto,
    reference: onnx.ModelProto,
    batches: Batches,
    options: RepairOptions,
    device: Device,
    progress: Progress | None,
) -> Quantized:
    """``proto`` with integers for activations, whose ranges are those of the dense ``reference``.

    Raises ``ModelError`` for a model in which nothing can be integers.
    """
    model = simplified(proto)
    dense = model if reference is proto else simplified(reference)
    placement = place(model, options.exclude)
    if not placement.products:
        raise ModelError(
            "the model has no product of float32 that could be computed in int8: export it in "
            "float32, and leave out --exclude where it names all"
        )
    target, rule = TARGETS[options.engine], RANGES[options.ranges]
    found = ranges(dense, placement.tensors, batches, device, rule, target.activations, progress)
    return quantized(model, dense, survey(model, options)[1], placement, found, target)

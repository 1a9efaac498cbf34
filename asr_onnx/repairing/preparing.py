"""What is repaired of a model, and the model with integers in it where these are asked for."""

from __future__ import annotations

import onnx

from asr_onnx.data.batches import Batches
from asr_onnx.errors import ModelError
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.product_layers import has_integers
from asr_onnx.graph.records import Site
from asr_onnx.graph.sites import Survey, find_sites, survey_of, with_heads
from asr_onnx.maths.clipping import RANGES
from asr_onnx.options import OPS, PruneOptions, RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.quantizing.placement import place
from asr_onnx.quantizing.quantized import Quantized, quantized
from asr_onnx.quantizing.ranges import ranges
from asr_onnx.quantizing.simplify import OPSET, opset, simplified
from asr_onnx.quantizing.targets import TARGETS
from asr_onnx.repairing.self_check import STREAMS, require_same


def survey(proto: onnx.ModelProto, options: PruneOptions) -> tuple[Survey, tuple[Site, ...]]:
    """What can be pruned under some options, and all that is repaired with it.

    Where channels go, whatever reads them is repaired, and what is rounded to integers is.
    """
    heads, ops = options.narrows, options.ops
    quantizes = isinstance(options, RepairOptions) and options.quantizes
    if isinstance(options, RepairOptions):
        heads = heads or options.reconstruct or quantizes
    if options.narrows or quantizes:
        ops = tuple(op for op in OPS if op in options.ops or not OPERATORS[op].linear)
    found = (
        survey_of(proto, ops) if quantizes and not options.chooses_mask else find_sites(proto, ops)
    )
    sites = with_heads(proto, found.sites) if heads else found.sites
    if not sites:
        raise ModelError("the model has no product whose rounding could be repaired")
    return found, sites


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
    if has_integers(proto) or has_integers(reference):
        raise ModelError("the model is quantised already: quantize the float32 model it was")
    model = simplified(proto)
    _check_same(proto, model, batches, device)
    dense = model if reference is proto else simplified(reference)
    placement = place(model, options.exclude)
    if not placement.products:
        raise ModelError(
            "the model has no product of float32 that could be computed in int8, but such as read "
            "an output or --exclude names"
        )
    target, rule = TARGETS[options.engine], RANGES[options.ranges]
    found = ranges(dense, placement.tensors, batches, device, rule, target.activations, progress)
    return quantized(model, dense, survey(model, options)[1], placement, found, target)


def _check_same(
    proto: onnx.ModelProto, model: onnx.ModelProto, batches: Batches, device: Device
) -> None:
    """Raise ``ModelError`` if the model that takes the place of ``proto`` does something else."""
    feeds = batches.feeds(batches.one())
    wanted, found = (Runner(m, device, once=True).run(feeds) for m in (proto, model))
    try:
        require_same(wanted, found, "those of the model given", STREAMS, alike=True)
    except ModelError:
        if (version := opset(proto)) >= OPSET:
            raise
        raise ModelError(
            f"the model has opset {version}, int8 needs {OPSET}, and it does something else when "
            f"onnx converts it: export it with opset {OPSET} or later"
        ) from None

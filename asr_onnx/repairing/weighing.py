"""What is told of a network before anything is removed, from one pass of the dense network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from asr_onnx.arrays import FloatArray
from asr_onnx.data.batches import Batches
from asr_onnx.execution.lockstep import Lockstep
from asr_onnx.execution.session import Device
from asr_onnx.execution.tensor_store import TensorStore
from asr_onnx.graph.records import Site
from asr_onnx.graph.sites import find_sites
from asr_onnx.maths.channel_removal import Removal
from asr_onnx.options import RepairOptions
from asr_onnx.parallel import Progress
from asr_onnx.pruning.channels import Narrowing
from asr_onnx.repairing.channel_weighing import weigh_channels
from asr_onnx.repairing.end_to_end import EndToEnd
from asr_onnx.repairing.preparing import survey
from asr_onnx.solvers.prediction import predict


@dataclass(frozen=True)
class Weighed:
    """``errors`` by site are what ``densities.by_error`` and ``sparing.predicted`` take.

    ``narrowing`` says which channels may go, ``removals`` of each of its groups in which order and
    what that costs the layers that read them, and ``measured`` what it costs the whole network.
    """

    errors: Mapping[str, FloatArray] | None = None
    narrowing: Narrowing | None = None
    removals: Sequence[Removal] | None = None
    measured: Sequence[Removal] | None = None


def weighed_for(
    proto: onnx.ModelProto,
    reference: onnx.ModelProto,
    batches: Batches,
    device: Device,
    store: TensorStore,
    cells: Sequence[RepairOptions],
    progress: Progress | None,
) -> Weighed:
    """What the options of ``cells``, which share their sites, need to know beforehand."""
    first = cells[0]
    if first.narrows:
        _, sites = survey(proto, first)
        sizes = {name: array.shape for name, array in batches.feeds(batches.one()).items()}
        narrowing = Narrowing.of(proto, sites, sizes, first.ops, first.include, first.exclude)
        if not any(o.weighs_channels for o in cells):
            return Weighed(narrowing=narrowing)
        dense = _dense(reference, sites, batches, device, store)
        whole = EndToEnd(reference, batches, device) if first.searches_allocation else None
        removals, measured = weigh_channels(dense, narrowing, progress, whole)
        return Weighed(None, narrowing, removals, measured)
    if not any(o.allocates_by_error for o in cells):
        return Weighed()
    sites = find_sites(proto, first.ops).sites
    dense = _dense(reference, sites, batches, device, store)
    return Weighed(errors=_layers(dense, len(sites), progress))


def _dense(
    proto: onnx.ModelProto,
    sites: Sequence[Site],
    batches: Batches,
    device: Device,
    store: TensorStore,
) -> Lockstep:
    """The dense network by itself."""
    same = {s.output: s for s in sites}
    return Lockstep(proto, proto, sites, same, batches, device, store, repairs=0)


def _layers(dense: Lockstep, total: int, progress: Progress | None) -> dict[str, FloatArray]:
    """What removing weights will cost each of ``total`` sites."""
    found: dict[str, FloatArray] = {}
    for layer in dense.dense_layers():
        if progress:
            progress(len(found), total, f"weighing {layer.label}")
        found[layer.site.name] = predict(layer)
    return found


def leaving(weighed: Weighed, options: RepairOptions) -> frozenset[int]:
    """The channels that go, as atoms of the narrowing that was weighed."""
    score, removals, narrowing = options.choice.score, weighed.removals, weighed.narrowing
    assert narrowing, "channels go"
    if score is not None:
        removals = narrowing.by_score(score, options.row_scale)
    assert removals is not None, "weighed, as the options ask for it"
    return narrowing.gone(removals, options.macs_left, options.zeros, options.channel_multiple)

"""Channels that do nothing: no weight reads them, or all that do read the same value for all data.

A value is the same for all data where no weight makes the channel and it goes through nothing that
depends on anything else.  What the value is, a run tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, FloatArray, IntArray
from asr_onnx.graph.channel_rules import FOLLOWS
from asr_onnx.graph.channel_walk import attributes
from asr_onnx.graph.channels import Channels
from asr_onnx.graph.labels import Labels
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Site
from asr_onnx.graph.rows import to_rows
from asr_onnx.graph.wiring import Topology

# Operators that end what is constant: what they make of equal elements depends on how many there
# are, which may be open.
_COUNTING = frozenset(
    {"ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
    | {"InstanceNormalization", "MeanVarianceNormalization"}  # which blow rounding up
    | {"ReduceProd", "GlobalLpPool", "LpPool", "LpNormalization", "Softmax", "LogSoftmax"}
)
_ROUNDING = 8  # units in the last place by which equal values may differ after some operators


@dataclass(frozen=True)
class Idle:
    """Atoms that may go: the ``unread``, and the ``steady``, with the sites that read each of them.

    Sites go by their output.
    """

    unread: frozenset[int]
    steady: Mapping[int, Sequence[Site]]


def find_idle(
    model: onnx.ModelProto,
    channels: Channels,
    sites: Sequence[Site],
    values: Mapping[str, FloatArray],
) -> Idle:
    """The idle atoms of ``channels``, which are of the model, as far as ``sites`` tell.

    ``values`` are ``values_of`` the tensors of ``steady_atoms``.  An atom stays if a product reads
    or makes it that is no site.
    """
    by_output = {s.output: s for s in sites}
    open_ones = {a for g in channels.groups if not g.reason and g.producers for a in g.atoms}
    for output in (channels.inputs.keys() | channels.depthwise.keys()) - by_output.keys():
        for ids in (channels.inputs, channels.outputs, channels.depthwise):
            open_ones.difference_update(ids.get(output, np.empty(0)).tolist())
    reading: dict[int, list[Site]] = {a: [] for a in open_ones}
    for output in channels.inputs:
        for atom in _read(channels, by_output[output]) if output in by_output else ():
            if atom in reading:
                reading[atom].append(by_output[output])
    unread = frozenset(a for a, readers in reading.items() if not readers)
    same = steady_atoms(model, channels, sites, values)
    steady = {
        a: readers
        for a, readers in reading.items()
        if readers and all(a in same.get(s.input, ()) for s in readers)
    }
    return Idle(unread, steady)


def passes_on(node: onnx.NodeProto, site: Site, value: float) -> bool:
    """Whether a bias of the ``site``, the ``node``, can do what a channel of one ``value`` does.

    Zero does nothing.  Anything else is not the same where a kernel reaches beyond the edge.  NaN
    stands for several values.
    """
    if np.isnan(value) or value == 0:
        return value == 0
    if OPERATORS[site.op].linear:
        return True
    return site.op == "Conv" and not _pads(node)


def values_of(tensor: AnyArray, labels: Labels) -> FloatArray:
    """Of each position (n,) along the labels' axis the one value it has, NaN where it has many.

    Values that differ by rounding are one.
    """
    along = np.moveaxis(tensor, labels.axis, 0).reshape(labels.ids.size, -1).astype(np.float64)
    eps = np.finfo(tensor.dtype).eps if tensor.dtype.kind == "f" else 0.0
    low, high = along.min(axis=1), along.max(axis=1)
    finite = np.isfinite(low) & np.isfinite(high)
    low, high = (np.where(finite, side, np.nan) for side in (low, high))
    same = high - low <= _ROUNDING * float(eps) * np.maximum(np.abs(low), np.abs(high))
    return np.asarray(np.where(same, (low + high) / 2, np.nan))


def bias_change(site: Site, values: FloatArray) -> FloatArray:
    """What channels of some ``values`` (Cin,) add to the outputs (C,) of a site."""
    rows = np.asarray(to_rows(site, site.weight.value), np.float64)
    groups, outputs, _ = rows.shape
    kernels = rows.reshape(groups, outputs, -1, values.size // groups).sum(axis=2)
    return np.asarray(np.einsum("goi,gi->go", kernels, values.reshape(groups, -1)).reshape(-1))


def _read(channels: Channels, site: Site) -> set[int]:
    """Atoms that a site has a weight for which is not zero."""
    ids = channels.inputs[site.output]
    inputs = ids.size // site.groups
    rows = to_rows(site, site.weight.value)
    read = rows.reshape(-1, inputs).any(axis=0)  # atoms of grouped convolutions are in all groups
    return set(ids[:inputs][read].tolist())


def _silent(ids: IntArray, site: Site | None) -> set[int]:
    """Atoms (their channels are ``ids``) that a site has no weight for that is not zero."""
    if site is None:
        return set()
    makes = to_rows(site, site.weight.value).any(axis=2).reshape(-1)
    return {*ids.tolist()} - {*ids[makes].tolist()}


def steady_atoms(
    model: onnx.ModelProto,
    channels: Channels,
    sites: Sequence[Site],
    values: Mapping[str, FloatArray] | None = None,
) -> dict[str, set[int]]:
    """By tensor the atoms whose channels are there the same for all data.

    Without ``values`` that is for inputs of one size.  With them it is for all sizes: a channel has
    one value all along, zero where a node pads.
    """
    topology, by_output = Topology(model.graph), {s.output: s for s in sites}
    atoms = {t: {*labels.ids.tolist()} for t, labels in channels.tensors.items()}
    found: dict[str, set[int]] = {}
    for node in topology.nodes:
        made = [t for t in node.output if t in atoms]
        if not made:
            continue
        bias_is_constant = all(topology.is_constant(t) for t in node.input[2:] if t)
        if (output := node.output[0]) in channels.outputs:
            silent = _silent(channels.outputs[output], by_output.get(output))
            found[output] = silent if bias_is_constant else set()
            continue
        shape = FOLLOWS.get(node.op_type, len(node.input))
        read = {t for i, t in enumerate(node.input) if t and i != shape}
        read = {t for t in read if not topology.is_constant(t)}
        told = read <= atoms.keys() and not _counts(node)
        varying = {a for t in read & atoms.keys() for a in atoms[t] - found.get(t, set())}
        for t in read & (values or {}).keys():
            assert values is not None
            wrong = np.isnan(values[t]) | ((values[t] != 0) & _pads(node))
            varying |= {*channels.tensors[t].ids[wrong].tolist()}
        for t in made:
            found[t] = atoms[t] - varying if told else set()
            if t in channels.depthwise and bias_is_constant:
                found[t] |= _silent(channels.depthwise[t], by_output.get(t))
    return found


def _counts(node: onnx.NodeProto) -> bool:
    """Whether what a node makes of equal elements depends on more than these."""
    extrapolates = b"tf_crop_and_resize" in attributes(node).values()
    fills = node.op_type == "Pad" and (len(node.input) > 2 and node.input[2] != "")
    return node.op_type in _COUNTING or extrapolates or fills or "value" in attributes(node)


def _pads(node: onnx.NodeProto) -> bool:
    """Whether a node adds zeros around the data."""
    given = attributes(node)
    same = given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    around = same or any(given.get("pads", ())) or bool(given.get("ceil_mode"))
    return node.op_type == "Pad" or (around and node.op_type != "MaxPool")

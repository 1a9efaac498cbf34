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

# Operators whose value of equal elements depends on how many there are, which may be open.
_COUNTING = frozenset(
    {"ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
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


def find_idle(model: onnx.ModelProto, channels: Channels, sites: Sequence[Site]) -> Idle:
    """The idle atoms of ``channels``, which are of the model, as far as ``sites`` tell.

    An atom stays if a product reads or makes it that is no site.
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
    same = _steady(model, channels, by_output)
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
        places = [p.storage for p in (site.norm and site.norm.mean, site.carrier) if p]
        return not OPERATORS[site.op].bias_behind or any(places)
    given = attributes(node)
    padded = given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or any(
        given.get("pads", ())
    )
    return site.op == "Conv" and not padded


def values_of(tensor: AnyArray, labels: Labels) -> FloatArray:
    """Of each position (n,) along the labels' axis the one value it has, NaN where it has many.

    Values that differ by rounding are one.
    """
    along = np.moveaxis(tensor, labels.axis, 0).reshape(labels.ids.size, -1)
    slack = _ROUNDING * float(np.finfo(tensor.dtype).eps)
    low, high = along.min(axis=1).astype(np.float64), along.max(axis=1).astype(np.float64)
    same = high - low <= slack * np.maximum(np.abs(low), np.abs(high))
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


def _steady(
    model: onnx.ModelProto, channels: Channels, sites: Mapping[str, Site]
) -> dict[str, set[int]]:
    """By tensor the atoms whose channels are there the same for all data."""
    topology = Topology(model.graph)
    atoms = {t: {*labels.ids.tolist()} for t, labels in channels.tensors.items()}
    found: dict[str, set[int]] = {}
    for node in topology.nodes:
        made = [t for t in node.output if t in atoms]
        if not made:
            continue
        if (output := node.output[0]) in channels.outputs:
            found[output] = _silent(channels.outputs[output], sites.get(output))
            continue
        shape = FOLLOWS.get(node.op_type, len(node.input))
        read = {t for i, t in enumerate(node.input) if t and i != shape}
        read = {t for t in read if not topology.is_constant(t)}
        told = read <= atoms.keys() and node.op_type not in _COUNTING
        varying = {a for t in read & atoms.keys() for a in atoms[t] - found.get(t, set())}
        for t in made:
            found[t] = atoms[t] - varying if told else set()
            if t in channels.depthwise:
                found[t] |= _silent(channels.depthwise[t], sites.get(t))
    return found

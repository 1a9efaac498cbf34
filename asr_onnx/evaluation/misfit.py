"""How well data fit a model's first kept BatchNormalization: only the graph up to there is run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from asr_onnx.arrays import Feeds, FloatArray
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.records import Norm, Site
from asr_onnx.graph.sites import find_sites
from asr_onnx.graph.wiring import Topology
from asr_onnx.maths.moments import channel_rows


class FirstNorm:
    """The graph up to the first convolution that feeds a BatchNormalization."""

    def __init__(self, proto: onnx.ModelProto, site: Site, norm: Norm, device: Device) -> None:
        self.site, self.norm = site, norm
        self._runner = Runner(_up_to(proto, site.output), device)

    @classmethod
    def of(cls, proto: onnx.ModelProto, device: Device) -> FirstNorm | None:
        """``None`` when no BatchNormalization of constants follows a convolution."""
        for site in sorted(find_sites(proto).sites, key=lambda s: s.index):
            if site.norm:
                return cls(proto, site, site.norm, device)
        return None

    def misfit(self, batches: Iterable[Feeds]) -> float:
        """Mean over the channels of the divergence of the data from the running statistics.

        With mean m and variance v of the convolution's output on the data, m0 and v0 stored, it is
        that of two normal distributions (Kullback and Leibler 1951), in nats:
        ``KL = (v / v0 + (m - m0)^2 / v0 - 1 - log(v / v0)) / 2``, which close to a fit is
        ``(m - m0)^2 / 2 v0 + log(v / v0)^2 / 4``.  The normalisation's epsilon is added to both
        variances, so a channel that it has switched off does not count.
        """
        mean0, var0 = (np.asarray(p.value, np.float64) for p in (self.norm.mean, self.norm.var))
        total, squares, count = np.zeros_like(mean0), np.zeros_like(mean0), 0
        for feeds in batches:
            rows = channel_rows(self._runner.run(feeds)[self.site.output], self.site.axis)
            centred = rows.astype(np.float32) - mean0.astype(np.float32)[:, None]
            total += centred.sum(-1, dtype=np.float64).sum(0)
            squares += np.vecdot(centred, centred).astype(np.float64).sum(0)
            count += rows.shape[0] * rows.shape[2]
        shift = total / count
        return float(_divergence(shift, squares / count - shift**2, var0, self.norm.epsilon).mean())


def _divergence(shift: FloatArray, var: FloatArray, var0: FloatArray, epsilon: float) -> FloatArray:
    stored = np.maximum(var0, 0) + epsilon
    ratio = (np.maximum(var, 0) + epsilon) / stored
    return np.asarray((ratio + shift**2 / stored - 1 - np.log(ratio)) / 2)


def _up_to(proto: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    topology = Topology(proto.graph)
    needed = topology.ancestors([tensor], set(topology.inputs))
    read = {t for i in needed for t in topology.reads(i)}
    graph = onnx.helper.make_graph(
        [topology.nodes[i] for i in needed],
        "first_norm",
        [i for i in proto.graph.input if i.name in read],
        [onnx.ValueInfoProto(name=tensor)],
        [t for t in proto.graph.initializer if t.name in read],
        sparse_initializer=[t for t in proto.graph.sparse_initializer if t.values.name in read],
    )
    model = onnx.ModelProto(ir_version=proto.ir_version, graph=graph)
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    return model

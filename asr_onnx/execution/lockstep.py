"""Networks side by side: one dense stream and, for each repair, a repaired and a pruned one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, Outputs
from asr_onnx.data.batches import Batches
from asr_onnx.errors import ModelError
from asr_onnx.execution.layer import Split, StreamLayer, against
from asr_onnx.execution.plan import Stage, plan, stages
from asr_onnx.execution.session import Device, Runner
from asr_onnx.execution.stream import Stream
from asr_onnx.execution.tensor_store import TensorStore
from asr_onnx.graph.cut import Network
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.records import Site
from asr_onnx.graph.wiring import Topology
from asr_onnx.maths.moments import PairedMoments, pooled

# Bytes of live tensors up to which the dense stream runs ahead; more gains nothing.  It does not
# depend on the memory limit, because where stages end shows in the last bits of the result.
_AHEAD = 1 << 29
_WEIGHTY = (*OPERATORS, "Einsum", "GRU", "LSTM", "RNN", "Attention")  # mix what is in a sample


class Lockstep:
    """What all repairs of a model share: the plan, the data, and the dense stream.

    Nothing the dense network computes depends on a repair, so it runs ahead, stage by stage.
    ``sites`` are those of the ``pruned`` network, ``dense_sites`` the dense one's by their output.
    There is a lane for each repair.  Without ``shortcuts`` no repair asks for them.
    """

    def __init__(
        self,
        dense: onnx.ModelProto,
        pruned: onnx.ModelProto,
        sites: Sequence[Site],
        dense_sites: Mapping[str, Site],
        calibration: Batches,
        device: Device,
        store: TensorStore,
        repairs: int = 1,
        shortcuts: bool = True,
    ) -> None:
        networks = Network.of(dense), Network.of(pruned)
        steps = plan(networks[1].topology, sites)
        sizes = _sizes(networks[0], steps, dense_sites.values(), calibration, device)
        self.stages = stages(steps, sizes, _AHEAD, 1 + repairs)
        self._last = steps[-1]
        ends = _ends(networks[1].topology, steps)
        self._split = Split(
            frozenset(b.index for b in calibration.batches if not b.held_out),
            frozenset(b.index for b in calibration.checked),
        )
        self._dense = Stream("dense", networks[0], store, device)
        self._sites, self._shortcuts = dense_sites, shortcuts
        self.lanes = [
            Lane(
                self._dense,
                Stream(f"repaired {number}", networks[1], store, device),
                Stream(f"pruned {number}", networks[1], store, device),
                self._split,
                self._last,
                ends,
            )
            for number in range(repairs)
        ]
        for batch in calibration.batches:
            feeds = calibration.feeds(batch)
            self._dense.begin(batch.index, feeds)
            for lane in self.lanes:
                lane.repaired.begin(batch.index, feeds)
                if batch.index in self._split.checked_on:
                    lane.pruned.begin(batch.index, feeds)

    def dense_layers(self) -> Iterator[StreamLayer]:
        """The sites of the dense network as layers that get its own inputs, in turn."""
        for stage in self.stages:
            self.run(stage, [s.input for s in stage.sites])
            for step in stage.steps:
                yield StreamLayer(self._dense, self._dense, self._split, step, arrived=True)
            self.finish(stage)

    def run(self, stage: Stage, more: Iterable[str] = ()) -> None:
        """Take the dense stream through a stage.

        The outputs of its sites, the shortcuts they are added to, and ``more`` tensors are live
        until ``finish``.
        """
        weights = [(s, s.weight.value) for s in (self._sites[s.output] for s in stage.sites)]
        live = {*stage.feeds}.union(*(s.keeps for s in stage.steps))
        taps = [s.shortcut for s in stage.sites if s.shortcut in live] if self._shortcuts else []
        self._dense.run(stage, weights, use=lambda batch, results: None, taps=[*taps, *more])

    def finish(self, stage: Stage) -> None:
        """Forget what no later stage reads."""
        self._dense.finish(stage)

    def outputs(self) -> list[Outputs]:
        """The dense network's outputs of each batch results are checked on."""
        return self._dense.outputs(self._last, self._split.checked_on)


class Lane:
    """One repair beside the dense stream: the repaired stream, and the merely pruned one.

    The dense and the repaired stream run over all batches; the pruned one, which is for the report,
    over those that results are checked on: the held-out ones, or all when none is held out.
    """

    def __init__(
        self,
        dense: Stream,
        repaired: Stream,
        pruned: Stream,
        split: Split,
        last: Stage,
        ends: frozenset[str],
    ) -> None:
        self.repaired, self.pruned = repaired, pruned
        self._dense, self._split, self._last, self._ends = dense, split, last, ends

    def layer(self, step: Stage) -> StreamLayer:
        """The site the step leads to, for a solver."""
        (site,) = step.sites
        judged = not self._split.solved_on & self._split.checked_on
        last = judged and site.output in self._ends
        return StreamLayer(self._dense, self.repaired, self._split, step, last=last)

    def run_pruned(self, stage: Stage, weights: Mapping[str, AnyArray]) -> dict[str, PairedMoments]:
        """Take the pruned stream through a stage; moments by site name, dense and pruned."""
        pairs = {s.name: against(self._dense, s) for s in stage.sites}

        def use(batch: int, results: Mapping[str, AnyArray]) -> dict[str, PairedMoments]:
            return {name: pair(batch, results)[1] for name, pair in pairs.items()}

        chosen = [(s, weights[s.name]) for s in stage.sites]
        found = self.pruned.run(stage, chosen, use=use, keep_outputs=False)
        self.pruned.finish(stage)
        return {name: pooled(batch[name] for batch in found) for name in pairs}

    def outputs(self) -> tuple[list[Outputs], list[Outputs]]:
        """The graph's outputs, repaired and pruned, of each batch results are checked on."""
        repaired, pruned = (
            stream.outputs(self._last, self._split.checked_on)
            for stream in (self.repaired, self.pruned)
        )
        return repaired, pruned


def _ends(topology: Topology, steps: Sequence[Stage]) -> frozenset[str]:
    """Outputs of sites that nothing with weights comes behind on the way to the network's."""
    *others, last = steps
    if any(topology.nodes[i].op_type in _WEIGHTY for i in last.nodes):
        return frozenset()
    read = {t for step in others for t in (*step.feeds, *(site.input for site in step.sites))}
    return frozenset((*last.feeds, *topology.outputs)) - read


def _sizes(
    network: Network,
    steps: Sequence[Stage],
    sites: Iterable[Site],
    calibration: Batches,
    device: Device,
) -> dict[str, int]:
    """Bytes, over all samples, of the tensors that steps keep and of the sites' outputs.

    Measured on one sample; nothing is known of a network that does not take a single one.
    """
    batch = calibration.one()
    feeds, samples = calibration.feeds(batch), len(batch.samples)
    wanted = {t for s in steps for t in (*s.keeps, *(site.output for site in s.sites))}
    stored = network.topology.initializers
    weights = {s.weight.name: s.weight.value for s in sites if s.weight.name not in stored}
    everything = range(len(network.topology.nodes))
    segment = network.segment(everything, wanted, feeds, weights)
    if segment is None:
        return {}
    try:
        runner = Runner(segment.model, device, weights=segment.weights, once=True)
        results = runner.run(feeds)
    except ModelError:
        return {}
    total = sum(len(b.samples) for b in calibration.batches)
    return {t: np.asarray(a).nbytes * total // samples for t, a in results.items()}

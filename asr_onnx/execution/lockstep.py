"""One dense stream and, for each of the repairs that share it, a repaired and a pruned one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx

from asr_onnx.data.batches import Calibration
from asr_onnx.errors import ModelError
from asr_onnx.evaluation.outputs import Outputs
from asr_onnx.execution.plan import Stage, Step, plan, stages
from asr_onnx.execution.session import Device, Runner
from asr_onnx.execution.stream import Stream, Use
from asr_onnx.execution.tensor_store import TensorStore
from asr_onnx.graph.cut import Network
from asr_onnx.graph.records import AnyArray, Site
from asr_onnx.maths.moments import PairedMoments, paired_moments, pooled

# Bytes of live tensors up to which the dense stream runs ahead; more gains nothing.  It does not
# depend on the memory limit, because where stages end shows in the last bits of the result.
_AHEAD = 1 << 29


class Course:
    """What all repairs of a model share: the plan, the data, and the dense stream.

    Nothing the dense network computes depends on a repair, so it runs ahead, stage by stage.
    ``sites`` are those of the ``pruned`` network, ``dense_sites`` the dense one's by their output.
    Each of ``walks`` is one repair.  Without ``shortcuts`` no repair asks for them.
    """

    def __init__(
        self,
        dense: onnx.ModelProto,
        pruned: onnx.ModelProto,
        sites: Sequence[Site],
        dense_sites: Mapping[str, Site],
        calibration: Calibration,
        device: Device,
        store: TensorStore,
        repairs: int = 1,
        shortcuts: bool = True,
    ) -> None:
        networks = Network.of(dense), Network.of(pruned)
        steps = plan(networks[1].topology, sites)
        sizes = _sizes(networks[0], steps, dense_sites.values(), calibration, device)
        self.stages = stages(steps, sizes, _AHEAD, 1 + repairs)
        self.last = steps[-1]
        self.solved_on = {b.index for b in calibration.batches if not b.held_out}
        self.checked_on = {b.index for b in calibration.checked}
        self.dense = Stream("dense", networks[0], store, device)
        self._sites, self._shortcuts = dense_sites, shortcuts
        self.walks = [
            Walk(
                self,
                Stream(f"repaired {number}", networks[1], store, device),
                Stream(f"pruned {number}", networks[1], store, device),
            )
            for number in range(repairs)
        ]
        for batch in calibration.batches:
            feeds = calibration.feeds(batch)
            self.dense.begin(batch.index, feeds)
            for walk in self.walks:
                walk.repaired.begin(batch.index, feeds)
                if batch.index in self.checked_on:
                    walk.pruned.begin(batch.index, feeds)

    def run(self, stage: Stage) -> None:
        """Take the dense stream through a stage.

        The outputs of its sites, and the shortcuts they are added to, are live until ``finish``.
        """
        weights = [(s, s.weight.value) for s in (self._sites[s.output] for s in stage.sites)]
        live = {*stage.feeds}.union(*(s.keeps for s in stage.steps))
        taps = [s.shortcut for s in stage.sites if s.shortcut in live] if self._shortcuts else []
        self.dense.run(stage, weights, use=lambda batch, results: None, taps=taps)

    def finish(self, stage: Stage) -> None:
        """Forget what no later stage reads."""
        self.dense.finish(stage)

    def outputs(self) -> list[Outputs]:
        """The dense network's outputs of each batch results are checked on."""
        return self.dense.outputs(self.last, self.checked_on)


class Walk:
    """One repair on its way: the repaired stream, and the merely pruned one for the report.

    The dense and the repaired stream run over all batches; the pruned one over those the
    results are ``checked_on``: the held-out ones, or all when none is held out.
    """

    def __init__(self, course: Course, repaired: Stream, pruned: Stream) -> None:
        self.repaired, self.pruned = repaired, pruned
        self.dense = course.dense
        self.solved_on, self.checked_on = course.solved_on, course.checked_on
        self._last = course.last

    def against_dense(self, site: Site) -> Use[tuple[int, PairedMoments]]:
        """For a stream's run: moments of each batch's output of ``site`` with the dense one."""

        def pair(batch: int, results: Mapping[str, AnyArray]) -> tuple[int, PairedMoments]:
            dense = self.dense[batch, site.output]
            return batch, paired_moments(dense, results[site.output], site.axis)

        return pair

    def checked(self, parts: Iterable[tuple[int, PairedMoments]]) -> PairedMoments:
        """The moments over the batches that results are checked on."""
        return pooled(m for batch, m in parts if batch in self.checked_on)

    def run_pruned(self, stage: Stage, weights: Mapping[str, AnyArray]) -> dict[str, PairedMoments]:
        """Take the pruned stream through a stage; moments by site name, dense and pruned."""
        pairs = {s.name: self.against_dense(s) for s in stage.sites}

        def use(batch: int, results: Mapping[str, AnyArray]) -> dict[str, PairedMoments]:
            return {name: pair(batch, results)[1] for name, pair in pairs.items()}

        chosen = [(s, weights[s.name]) for s in stage.sites]
        found = self.pruned.run(stage, chosen, use=use, keep_outputs=False)
        self.pruned.finish(stage)
        return {name: pooled(batch[name] for batch in found) for name in pairs}

    def shortcuts(self, site: Site, batch: int) -> tuple[AnyArray, AnyArray] | None:
        """What the site's output is added to, in the dense and in the repaired stream.

        ``None`` where there is nothing, it is not computed yet, or it is broadcast.
        """
        if site.shortcut is None:
            return None
        wanted, have = (s.get(batch, site.shortcut) for s in (self.dense, self.repaired))
        shape = self.dense[batch, site.output].shape
        if wanted is None or have is None or wanted.shape != shape:
            return None
        return wanted, have

    def outputs(self) -> tuple[list[Outputs], list[Outputs]]:
        """The graph's outputs, repaired and pruned, of each batch results are checked on."""
        repaired, pruned = (
            stream.outputs(self._last, self.checked_on) for stream in (self.repaired, self.pruned)
        )
        return repaired, pruned


def _sizes(
    network: Network,
    steps: Sequence[Step],
    sites: Iterable[Site],
    calibration: Calibration,
    device: Device,
) -> dict[str, int]:
    """Bytes, over all samples, of the tensors that steps keep and of the sites' outputs.

    Measured on one sample; nothing is known of a network that does not take a single one.
    """
    batch = calibration.batches[0]
    feeds, samples = calibration.feeds(batch), len(batch.samples)
    if calibration.fixed_batch is None:
        feeds, samples = {n: a[:1] for n, a in feeds.items()}, 1
    wanted = {t for s in steps for t in (*s.keeps, *([s.site.output] if s.site else []))}
    weights = {s.weight.name: s.weight.value for s in sites}
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

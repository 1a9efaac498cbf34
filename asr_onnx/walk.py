"""Streams: networks executed step by step over all batches, keeping only live tensors."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.calibration import Calibration
from asr_onnx.evaluate import Outputs, stack
from asr_onnx.segments import Network, Step, plan
from asr_onnx.sessions import Device, Runner
from asr_onnx.store import TensorStore
from asr_onnx.types import AnyArray, Feeds, Site


class Stream:
    """One network on its way through the steps, with the live tensors of every batch.

    ``name`` separates its tensors from other streams' in the shared ``store``.
    """

    def __init__(self, name: str, network: Network, store: TensorStore, device: Device) -> None:
        self._name = name
        self._network = network
        self._store = store
        self._device = device
        self.batches: list[int] = []

    def begin(self, batch: int, feeds: Feeds) -> None:
        """Put a batch of the network's inputs at the start."""
        self.batches.append(batch)
        for tensor in self._network.topology.inputs:
            self.put(batch, tensor, feeds[tensor])

    def __getitem__(self, key: tuple[int, str]) -> AnyArray:
        """Live tensor by (batch, name)."""
        return self._store[(self._name, *key)]

    def put(self, batch: int, tensor: str, value: AnyArray) -> None:
        """Make a tensor live."""
        self._store.put((self._name, batch, tensor), value)

    def get(self, batch: int, tensor: str) -> AnyArray | None:
        """A live tensor, or ``None`` when it is not there (yet, or any more)."""
        key = (self._name, batch, tensor)
        return self._store.get(key)

    def run(
        self,
        step: Step,
        site: Site | None = None,
        weight: AnyArray | None = None,
        hold_input: bool = False,
        only: Container[int] | None = None,
    ) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        """Run the step's segment on every batch, and its ``site`` under ``weight`` if given.

        Live tensors are stored, with ``hold_input`` the site's input as well, its output never;
        yields each batch (those in ``only``) and the results of the run.
        """
        weights = None
        if site and weight is not None:
            weights = {site.weight.name: weight}
            if site.bias:
                weights[site.bias.name] = site.bias.value
        runner = None
        for batch in self.batches:
            if only is not None and batch not in only:
                continue
            feeds = {t: self[batch, t] for t in step.feeds}
            if runner is None:
                model = self._network.segment(step, feeds, weights, hold_input)
                runner = Runner(model, self._device) if model else None
            results = runner.run(feeds) if runner else {}
            held = [step.site.input] if step.site and hold_input else []
            for tensor in results.keys() & {*step.keeps, *held}:
                self.put(batch, tensor, results[tensor])
            yield batch, results

    def execute(
        self, site: Site, weight: AnyArray, bias: NDArray[np.floating]
    ) -> Iterator[tuple[int, AnyArray]]:
        """Run the site alone under another weight and bias; its output becomes live."""
        runner = None
        for batch in self.batches:
            data = self[batch, site.input]
            runner = runner or Runner(self._network.site(site, data, weight, bias), self._device)
            output = runner.run({site.input: data})[site.output]
            self.put(batch, site.output, output)
            yield batch, output

    def outputs(self, last: Step, only: Container[int]) -> Outputs:
        """The graph's outputs over the batches in ``only``, from the last step."""
        wanted, found = self._network.topology.outputs, []
        for batch, results in self.run(last, only=only):
            found.append([results[t] if t in results else self[batch, t] for t in wanted])
        return {t: stack([row[i] for row in found]) for i, t in enumerate(wanted)}

    def finish(self, step: Step) -> None:
        """Forget what no later step reads."""
        for batch in self.batches:
            for tensor in step.drops:
                self._store.drop((self._name, batch, tensor))


class Walk:
    """Three streams over one plan: dense, repaired so far, and merely pruned.

    The first two run over all batches; the third, which only the report needs, over those the
    results are ``checked_on``: the held-out ones, or all when none is held out.
    """

    def __init__(
        self,
        dense: onnx.ModelProto,
        pruned: onnx.ModelProto,
        sites: Sequence[Site],
        calibration: Calibration,
        device: Device,
        store: TensorStore,
    ) -> None:
        networks = Network.of(dense), Network.of(pruned)
        self.steps = plan(networks[1].topology, sites)
        self.dense = Stream("dense", networks[0], store, device)
        self.repaired = Stream("repaired", networks[1], store, device)
        self.pruned = Stream("pruned", networks[1], store, device)
        every = {b.index for b in calibration.batches}
        held_out = {b.index for b in calibration.batches if b.held_out}
        self.solved_on = every - held_out
        self.checked_on = held_out or every
        for batch in calibration.batches:
            feeds = calibration.feeds(batch)
            self.dense.begin(batch.index, feeds)
            self.repaired.begin(batch.index, feeds)
            if batch.index in self.checked_on:
                self.pruned.begin(batch.index, feeds)

    def run_dense(self, step: Step, site: Site) -> None:
        """Take the dense stream to the output of ``site``, the dense network's, on every batch."""
        for batch, results in self.dense.run(step, site, site.weight.value):
            self.dense.put(batch, site.output, results[site.output])

    def run_pruned(
        self, step: Step, site: Site, weight: AnyArray
    ) -> Iterator[tuple[int, AnyArray]]:
        """Take the pruned stream to the site's output; yields each batch and its output."""
        for batch, results in self.pruned.run(step, site, weight):
            self.pruned.put(batch, site.output, results[site.output])
            yield batch, results[site.output]

    def target(self, site: Site, batch: int) -> AnyArray:
        """What the site's output should be: the dense output, plus what its shortcut has lost.

        He et al. 2017, "Channel Pruning", section 3.2: where the output is added to a shortcut,
        aim at the dense *sum*, in units before the BatchNormalization in between.
        """
        dense = self.dense[batch, site.output]
        if site.shortcut is None:
            return dense
        wanted, have = (s.get(batch, site.shortcut) for s in (self.dense, self.repaired))
        if wanted is None or have is None or wanted.shape != dense.shape:
            return dense  # not computed yet, or broadcast
        factor = site.from_sum.astype(dense.dtype).reshape(-1, *[1] * (dense.ndim - site.axis - 1))
        return np.asarray(dense + (wanted - have) * factor)

    def finish(self, step: Step) -> None:
        """Forget what no later step reads."""
        for stream in (self.dense, self.repaired, self.pruned):
            stream.finish(step)

    def outputs(self) -> tuple[Outputs, Outputs, Outputs]:
        """Run the last step; the graph's outputs, dense, repaired and pruned, on ``checked_on``."""
        dense, repaired, pruned = (
            stream.outputs(self.steps[-1], self.checked_on)
            for stream in (self.dense, self.repaired, self.pruned)
        )
        return dense, repaired, pruned

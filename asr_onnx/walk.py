"""Streams: networks executed step by step over all batches, keeping only live tensors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.calibration import Calibration
from asr_onnx.errors import ModelError
from asr_onnx.evaluate import Outputs, stack
from asr_onnx.segments import UNSCALED, Network, Scale, Step, plan
from asr_onnx.sessions import Device, Runner
from asr_onnx.store import TensorStore
from asr_onnx.types import AnyArray, Feeds, Site

T = TypeVar("T")


def _processors() -> int:
    """Processors this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


class Stream:
    """One network on its way through the steps, with the live tensors of every batch.

    ``name`` separates its tensors from other streams' in the shared ``store``.
    """

    def __init__(self, name: str, network: Network, store: TensorStore, device: Device) -> None:
        self._name = name
        self._network = network
        self._store = store
        self._device = device
        self._workers = 1 if device.provider != Device().provider else _processors()
        self._scales: dict[str, Scale] = {}
        self.batches: list[int] = []

    def begin(self, batch: int, feeds: Feeds) -> None:
        """Put a batch of the network's inputs at the start."""
        self.batches.append(batch)
        for tensor in self._network.topology.inputs:
            self.put(batch, tensor, feeds[tensor])

    def __getitem__(self, key: tuple[int, str]) -> AnyArray:
        """Live tensor by (batch, name)."""
        value = self._store[(self._name, *key)]
        scale = self._scales.get(key[1])
        return scale(value) if scale else value

    def put(self, batch: int, tensor: str, value: AnyArray) -> None:
        """Make a tensor live; raises ``ModelError`` for what is none."""
        if not isinstance(value, np.ndarray):
            raise ModelError(
                f"'{tensor}' is a sequence that lives on beyond a convolution: only tensors may"
            )
        self._store.put((self._name, batch, tensor), value)

    def get(self, batch: int, tensor: str) -> AnyArray | None:
        """A live tensor, or ``None`` when it is not there (yet, or any more)."""
        return self[batch, tensor] if (self._name, batch, tensor) in self._store else None

    def run(
        self,
        step: Step,
        site: Site | None = None,
        weight: AnyArray | None = None,
        hold_input: bool = False,
        only: Container[int] | None = None,
    ) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        """Run the step's segment on every batch, and its ``site`` under ``weight`` if given.

        Live tensors are stored, and the site's output; with ``hold_input`` its input as well.
        Yields each batch (those in ``only``) and the results of the run.
        """
        weights = None
        if site and weight is not None:
            weights = {site.weight.name: weight}
            if site.bias:
                weights[site.bias.name] = site.bias.value
        batches = [b for b in self.batches if only is None or b in only]
        if not batches:
            return
        scales = {t: s for t, s in self._scales.items() if t in step.feeds}
        first = {t: self._store[self._name, batches[0], t] for t in step.feeds}
        model = self._network.segment(step, first, weights, hold_input, scales)
        runner = self._runner(model, len(batches)) if model else None
        held = {*step.keeps, *([site.output] if site else [])}
        if step.site and hold_input:
            held.add(step.site.input)

        def one(batch: int) -> tuple[int, dict[str, AnyArray]]:
            results = runner.run(self._raw(step, batch)) if runner else {}
            for tensor in results.keys() & held:
                self.put(batch, tensor, results[tensor])
            return batch, results

        yield from self._each(one, batches)

    def execute(
        self, site: Site, weight: AnyArray, bias: NDArray[np.floating]
    ) -> Iterator[tuple[int, AnyArray]]:
        """Run the site alone under another weight and bias; its output becomes live."""
        for batch, output in self.trial(site, weight, bias, self.batches):
            self.put(batch, site.output, output)
            yield batch, output

    def rescale(self, site: Site, gamma: NDArray[np.floating], shift: NDArray[np.floating]) -> None:
        """Let the site's live output ``y`` be ``gamma * y + shift``, both (C,), from now on.

        What running the site anew with scaled weights would give.  Nothing is computed here: the
        segments that read the output begin with the scaling.
        """
        self._scales[site.output] = Scale(site.axis, gamma, shift)

    def trial(
        self, site: Site, weight: AnyArray, bias: NDArray[np.floating], batches: Iterable[int]
    ) -> Iterator[tuple[int, AnyArray]]:
        """Run the site alone under another weight and bias, and leave no trace."""
        batches = list(batches)
        data = self[batches[0], site.input]
        runner = self._runner(self._network.site(site, data, weight, bias), len(batches))

        def one(batch: int) -> tuple[int, AnyArray]:
            return batch, runner.run({site.input: self[batch, site.input]})[site.output]

        yield from self._each(one, batches)

    def _runner(self, model: onnx.ModelProto, batches: int) -> Runner:
        """Batches side by side, a thread each, waste less than threads that share a batch."""
        return Runner(model, self._device, single_threaded=self._workers > 1 and batches > 1)

    def _each(self, work: Callable[[int], T], batches: Sequence[int]) -> Iterator[T]:
        """``work`` on every batch, some at a time; results in order, few of them waiting."""
        if self._workers < 2 or len(batches) < 2:
            yield from map(work, batches)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            waiting: deque[Future[T]] = deque()
            for batch in batches:
                if len(waiting) > self._workers:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, batch))
            while waiting:
                yield waiting.popleft().result()

    def node(self, site: Site) -> onnx.NodeProto:
        """The site's node."""
        return self._network.topology.nodes[site.index]

    def _raw(self, step: Step, batch: int) -> dict[str, AnyArray]:
        """What the step's segment is fed, not yet scaled."""
        return {
            t + UNSCALED * (t in self._scales): self._store[self._name, batch, t]
            for t in step.feeds
        }

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
        for tensor in step.drops:
            self._scales.pop(tensor, None)


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
        for _ in self.dense.run(step, site, site.weight.value):
            pass

    def run_pruned(
        self, step: Step, site: Site, weight: AnyArray
    ) -> Iterator[tuple[int, AnyArray]]:
        """Take the pruned stream to the site's output; yields each batch and its output."""
        for batch, results in self.pruned.run(step, site, weight):
            yield batch, results[site.output]

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

"""A stream: one network executed stage by stage over all batches, keeping only live tensors."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_onnx.arrays import AnyArray, Feeds, Float32Array, Outputs
from asr_onnx.errors import ModelError
from asr_onnx.execution.plan import Stage
from asr_onnx.execution.session import Device, Runner
from asr_onnx.execution.tensor_store import TensorStore
from asr_onnx.graph.activations import Activation
from asr_onnx.graph.cut import Network, Segment
from asr_onnx.graph.records import Site
from asr_onnx.graph.scale_nodes import UNSCALED, Scale
from asr_onnx.parallel import each, processors

R = TypeVar("R")

Use = Callable[[int, Mapping[str, AnyArray]], R]  # what to make of a batch's results


class Stream:
    """One network on its way through the stages, with the live tensors of every batch.

    ``name`` separates its tensors from other streams' in the shared ``store``.
    """

    def __init__(self, name: str, network: Network, store: TensorStore, device: Device) -> None:
        self._name = name
        self._network = network
        self._store = store
        self._device = device
        self.workers = 1 if device.provider != Device().provider else processors()
        self._scales: dict[str, Scale] = {}
        self.batches: list[int] = []

    def begin(self, batch: int, feeds: Feeds) -> None:
        """Put a batch of the network's inputs at the start."""
        self.batches.append(batch)
        for tensor in self._network.topology.inputs:
            self.put(batch, tensor, feeds[tensor])

    def __getitem__(self, key: tuple[int, str]) -> AnyArray:
        """Live tensor by (batch, name)."""
        return self._scaled(key[1], self._store[(self._name, *key)])

    def part(self, batch: int, tensor: str, samples: slice) -> AnyArray:
        """Some samples of a live tensor."""
        return self._scaled(tensor, self._store.part((self._name, batch, tensor), samples))

    def _scaled(self, tensor: str, value: AnyArray) -> AnyArray:
        scale = self._scales.get(tensor)
        return scale(value) if scale else value

    def put(self, batch: int, tensor: str, value: AnyArray) -> None:
        """Make a tensor live; raises ``ModelError`` for what is none."""
        if not isinstance(value, np.ndarray):
            raise ModelError(
                f"'{tensor}' is a sequence that lives on beyond a convolution: only tensors may"
            )
        self._store.put((self._name, batch, tensor), value)

    def shape(self, batch: int, tensor: str) -> tuple[int, ...] | None:
        """A live tensor's shape, or ``None`` when it is not there (yet, or any more)."""
        return self._store.shape((self._name, batch, tensor))

    def run(
        self,
        stage: Stage,
        weights: Iterable[tuple[Site, AnyArray]] = (),
        *,
        use: Use[R],
        taps: Iterable[str] = (),
        keep_outputs: bool = True,
        only: Container[int] | None = None,
    ) -> list[R]:
        """Run a stage, with the sites in ``weights`` under theirs, on all batches (in ``only``).

        What the stage keeps becomes live, with ``keep_outputs`` the sites' outputs, and ``taps``;
        what is needed no more goes at once, but for these.  Returns what ``use`` makes of each
        batch and its results; several batches are used at a time.
        """
        batches = [b for b in self.batches if only is None or b in only]
        if not batches:
            return []
        constants: dict[str, AnyArray] = {}
        nodes, outputs = set(stage.nodes), []
        for site, weight in weights:
            constants[site.weight.name] = weight
            if site.bias:
                constants[site.bias.name] = site.bias.value
            nodes.add(site.index)
            outputs.append(site.output)
        held = {*stage.keeps, *taps, *(outputs if keep_outputs else ())}
        wanted = [*stage.keeps, *outputs, *taps]
        if not stage.sites:
            wanted += self._network.topology.outputs
        scales = {t: s for t, s in self._scales.items() if t in stage.feeds}
        first = {t: self._store[self._name, batches[0], t] for t in stage.feeds}
        segment = self._network.segment(nodes, wanted, first, constants, scales)
        runner = self._runner(segment, len(batches)) if segment else None
        gone = set(stage.drops) - held

        def one(batch: int) -> R:
            results = runner.run(self._raw(stage, batch)) if runner else {}
            for tensor in results.keys() & held:
                self.put(batch, tensor, results[tensor])
            for tensor in gone:
                self._store.drop((self._name, batch, tensor))
            return use(batch, results)

        return list(each(one, batches, self.workers))

    def execute(
        self, site: Site, weight: AnyArray, bias: NDArray[np.floating], use: Use[R]
    ) -> list[R]:
        """Run the site alone under another weight and bias; its output becomes live."""

        def keep(batch: int, results: Mapping[str, AnyArray]) -> R:
            self.put(batch, site.output, results[site.output])
            return use(batch, results)

        return self.trial(site, weight, bias, self.batches, keep)

    def rescale(self, site: Site, gamma: NDArray[np.floating], shift: NDArray[np.floating]) -> None:
        """Let the site's live output ``y`` be ``gamma * y + shift``, both (C,), from now on.

        What running the site anew with scaled weights would give.  Nothing is computed here: the
        segments that read the output begin with the scaling.
        """
        norm = site.norm if site.axis == 1 else None
        self._scales[site.output] = Scale(site.axis, gamma, shift, norm)

    def trial(
        self,
        site: Site,
        weight: AnyArray,
        bias: NDArray[np.floating],
        batches: Iterable[int],
        use: Use[R],
    ) -> list[R]:
        """Run the site alone under another weight and bias, and leave no trace."""
        batches = list(batches)
        data = self[batches[0], site.input]
        runner = self._runner(self._network.site(site, data, weight, bias), len(batches))
        return list(
            each(
                lambda b: use(b, runner.run({site.input: self[b, site.input]})),
                batches,
                self.workers,
            )
        )

    def _runner(self, segment: Segment, batches: int) -> Runner:
        """Batches side by side, a thread each, waste less than threads that share a batch."""
        single = self.workers > 1 and batches > 1
        return Runner(segment.model, self._device, single_threaded=single, weights=segment.weights)

    def function(
        self, activation: Activation, ndim: int, axis: int, dtype: np.dtype[np.generic]
    ) -> Callable[[Float32Array], Float32Array]:
        """An activation of tensors of ``ndim`` axes as a function of rows (P, C)."""
        behind = (1,) * (ndim - 1 - axis % ndim)
        like = np.zeros((1, 1, *behind), dtype)
        segment = self._network.segment(
            activation.nodes, [activation.output], {activation.input: like}
        )
        assert segment is not None
        runner = Runner(segment.model, Device(), weights=segment.weights, once=True)

        def values(rows: Float32Array) -> Float32Array:
            fed = rows.astype(dtype, copy=False).reshape(*rows.shape, *behind)
            found = runner.run({activation.input: fed})[activation.output]
            return np.asarray(found, np.float32).reshape(rows.shape)

        return values

    def node(self, site: Site) -> onnx.NodeProto:
        """The site's node."""
        return self._network.topology.nodes[site.index]

    def _raw(self, stage: Stage, batch: int) -> dict[str, AnyArray]:
        """What the stage's segment is fed, not yet scaled."""
        return {
            t + UNSCALED * (t in self._scales): self._store[self._name, batch, t]
            for t in stage.feeds
        }

    def outputs(self, last: Stage, only: Container[int]) -> list[Outputs]:
        """The graph's outputs of each batch in ``only``, from the last step."""
        wanted = self._network.topology.outputs

        def found(batch: int, results: Mapping[str, AnyArray]) -> Outputs:
            return {t: results[t] if t in results else self[batch, t] for t in wanted}

        return self.run(last, use=found, only=only)

    def finish(self, stage: Stage) -> None:
        """Forget what no later stage reads."""
        for batch in self.batches:
            for tensor in stage.drops:
                self._store.drop((self._name, batch, tensor))
        for tensor in stage.drops:
            self._scales.pop(tensor, None)

"""What it costs that channels go: the layers that read them, and the outputs of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray, IntArray
from asr_onnx.execution.lockstep import Lockstep
from asr_onnx.graph.fold import fold
from asr_onnx.graph.records import Patch, Site
from asr_onnx.graph.rows import from_rows
from asr_onnx.maths.channel_removal import Reader, Removal, eliminate, measured
from asr_onnx.parallel import Progress, blas_threads
from asr_onnx.pruning.channels import Narrowing
from asr_onnx.repairing.end_to_end import EndToEnd
from asr_onnx.solvers.prediction import reading_of

# Shares of a group's channels whose removal is tried on the whole network, a pass for each.
LEVELS = (0.125, 0.25, 0.5, 0.75)


def weigh_channels(
    dense: Lockstep,
    narrowing: Narrowing,
    progress: Progress | None,
    whole: EndToEnd | None = None,
) -> tuple[list[Removal], list[Removal] | None]:
    """In which order the channels of each group go, and what that costs those that read them.

    With the ``whole`` network also what it costs the outputs of that.
    A group is settled, and what its readers keep forgotten, once the last of them was seen.
    """
    removals: dict[int, Removal] = {}
    costs: dict[int, Removal] = {}
    reading: dict[int, list[_Reading]] = {n: [] for n in range(len(narrowing.groups))}
    for done, layer in enumerate(dense.dense_layers()):
        if progress:
            progress(done, len(narrowing.sites), f"weighing {layer.label}")
        reads = narrowing.read_by(layer.site)
        if not reads:
            continue
        numbers, places = zip(*reads, strict=True)
        readers, mean = reading_of(layer, places)
        for number, reader in zip(numbers, readers, strict=True):
            reading[number].append(_Reading(layer.site, layer.rows, mean, reader))
            group = narrowing.groups[number]
            if len(reading[number]) < len(group.consumers):
                continue
            settled = reading.pop(number)
            with threadpool_limits(blas_threads(len(group.atoms)), user_api="blas"):
                removals[number] = eliminate([r.reader for r in settled])
                if whole:
                    costs[number] = _measured(removals[number], settled, whole)
    every = range(len(narrowing.groups))
    return [removals[n] for n in every], [costs[n] for n in every] if whole else None


class _Reading(NamedTuple):
    """A site with its dense rows (G, R, K) and mean patch (G, K), as the reader of a group."""

    site: Site
    rows: FloatArray
    mean: FloatArray
    reader: Reader

    def without(self, atoms: IntArray) -> Patch:
        """What lets the site do without some atoms of the group, re-fitted on dense inputs."""
        change = self.reader.change(atoms)
        rows = self.rows + change
        weight = from_rows(self.site, rows).astype(self.site.weight.value.dtype)
        return fold(self.site, weight, -np.vecdot(change, self.mean[:, None, :]).reshape(-1))


def _measured(removal: Removal, readers: Sequence[_Reading], whole: EndToEnd) -> Removal:
    """The removal with what some of its steps do to the outputs of the whole network."""
    gone = sorted({round(level * removal.order.size) for level in LEVELS} - {0})
    errors = []
    for count in gone:
        patch = Patch()
        for reader in readers:
            patch |= reader.without(removal.order[:count])
        errors.append(whole.error(patch))
    return measured(removal, gone, errors)

"""What is told of a network before anything is removed, from one pass of the dense network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from asr_onnx.arrays import FloatArray
from asr_onnx.execution.lockstep import Lockstep
from asr_onnx.maths.channel_removal import Reader, Removal, eliminate
from asr_onnx.parallel import Progress, blas_threads
from asr_onnx.pruning.channels import Narrowing
from asr_onnx.solvers.prediction import predict, reading


@dataclass(frozen=True)
class Weighed:
    """``errors`` by site are what ``densities.by_error`` takes.

    ``narrowing`` says which channels may go, and ``removals`` of each of its groups in which order.
    """

    errors: Mapping[str, FloatArray] | None = None
    narrowing: Narrowing | None = None
    removals: Sequence[Removal] | None = None


def weigh_layers(dense: Lockstep, total: int, progress: Progress | None) -> dict[str, FloatArray]:
    """What removing weights will cost each of ``total`` sites."""
    found: dict[str, FloatArray] = {}
    for layer in dense.dense_layers():
        if progress:
            progress(len(found), total, f"weighing {layer.label}")
        found[layer.site.name] = predict(layer)
    return found


def weigh_channels(
    dense: Lockstep, narrowing: Narrowing, progress: Progress | None
) -> list[Removal]:
    """In which order the channels of each group go, and what that costs those that read them.

    A group is settled, and what its readers keep forgotten, once the last of them was seen.
    """
    removals: dict[int, Removal] = {}
    readers: dict[int, list[Reader]] = {n: [] for n in range(len(narrowing.groups))}
    for done, layer in enumerate(dense.dense_layers()):
        if progress:
            progress(done, len(narrowing.sites), f"weighing {layer.label}")
        reads = narrowing.read_by(layer.site)
        if not reads:
            continue
        numbers, places = zip(*reads, strict=True)
        for number, reader in zip(numbers, reading(layer, places), strict=True):
            readers[number].append(reader)
            group = narrowing.groups[number]
            if len(readers[number]) < len(group.consumers):
                continue
            with threadpool_limits(blas_threads(len(group.atoms)), user_api="blas"):
                removals[number] = eliminate(readers.pop(number))
    return [removals[n] for n in range(len(narrowing.groups))]

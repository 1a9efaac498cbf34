"""Which channels go: by what their readers lose or by what the outputs lose, whichever is better.

Errors of layers say little of the outputs where a network passes on few directions, or where a
layer's loss is made up for behind it or is not; errors of the outputs, one group at a time, know
nothing of how losses add up and of what later layers make up for.  So both are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from asr_onnx.options import RepairOptions
from asr_onnx.repairing.ladder import excess
from asr_onnx.repairing.result import Allocated, RepairResult
from asr_onnx.repairing.weighing import Weighed, leaving

LAYERS, OUTPUTS = "layers", "outputs"  # what the costs are of


def search(
    options: RepairOptions, weighed: Weighed, repair: Callable[[Weighed], RepairResult]
) -> RepairResult:
    """The better of two repairs on the samples held out; one, where both remove the same."""
    ways = {LAYERS: weighed, OUTPUTS: replace(weighed, removals=weighed.measured)}
    if leaving(ways[LAYERS], options) == leaving(ways[OUTPUTS], options):
        del ways[OUTPUTS]
    found = {name: repair(way) for name, way in ways.items()}
    errors = {name: excess(result.repaired_outputs) for name, result in found.items()}
    best = min(errors, key=errors.__getitem__)
    tried = tuple(Allocated(name, error, name == best) for name, error in errors.items())
    return replace(found[best], allocated=tried)

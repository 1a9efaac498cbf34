"""How much goes from where: what repairs best on samples held out, of a few ways to settle it.

Channels go by what their readers lose or by what the outputs lose.  Errors of layers say little of
the outputs where a network passes on few directions, or where a layer's loss is made up for behind
it or is not; errors of the outputs, one group at a time, know nothing of how losses add up and of
what later layers make up for.  Densities of single weights are those of a few allocations: layer
errors are neither additive nor monotone in the output (EvoPress, arXiv 2410.14649), and models put
together from layers that were solved one by one do not tell either (docs/measurements.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from asr_onnx.maths.densities import BY_ERROR, SEARCHED
from asr_onnx.options import RepairOptions
from asr_onnx.pruning.sparing import most_zeros
from asr_onnx.repairing.ladder import excess
from asr_onnx.repairing.result import Allocated, RepairResult
from asr_onnx.repairing.weighing import Weighed, leaving

LAYERS, OUTPUTS = "layers", "outputs"  # what the costs of channels are of
SPARED_BY = (BY_ERROR, "mixed")  # which layers a pattern spares; all but the first go by scores


def search(
    options: RepairOptions,
    weighed: Weighed | None,
    repair: Callable[[RepairOptions, Weighed | None], RepairResult],
) -> RepairResult:
    """The best of some repairs on the samples held out; one, where there is nothing to share out.

    No more than two of their models are in memory.
    """
    ways = _channels(options, weighed) if options.narrows else _allocations(options, weighed)
    errors: dict[str, float] = {}
    taken, best = "", None
    for name, way in ways.items():
        result = repair(*way)
        errors[name] = excess(result.repaired_outputs)
        if best is None or errors[name] < errors[taken]:
            taken, best = name, result
    assert best
    tried = tuple(Allocated(name, error, name == taken) for name, error in errors.items())
    return replace(best, options=options, allocated=tried)


_Ways = dict[str, tuple[RepairOptions, Weighed | None]]


def _channels(options: RepairOptions, weighed: Weighed | None) -> _Ways:
    assert weighed, "channels go by what they cost"
    ways = {LAYERS: weighed, OUTPUTS: replace(weighed, removals=weighed.measured)}
    if leaving(ways[LAYERS], options) == leaving(ways[OUTPUTS], options):
        del ways[OUTPUTS]
    return {name: (options, way) for name, way in ways.items()}


def _allocations(options: RepairOptions, weighed: Weighed | None) -> _Ways:
    names: Sequence[str] = SEARCHED if options.structure.density is None else SPARED_BY
    if options.zeros in (0, most_zeros(options.structure)):  # none goes, or all that can
        names = names[:1]
    return {name: (replace(options, allocation=name), weighed) for name in names}

"""Recipe auto: the cheapest recipe that is good enough, found by trying.

A rung is a recipe, tried on the images held out.  What the dense network computes is not kept from
rung to rung: it is one pass of about five (asr) or fifty (best), and keeping it would take memory
for the activations of all layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.options import RepairOptions
from asr_onnx.repairing.result import RepairResult, Rung

# Relative errors up to which outputs are good enough; measured, see docs/measurements.md.
ONE_ANSWER = 0.21  # of an output that gives each sample one class: an arg-max forgives
ANYTHING = 0.1  # of all others: boxes, maps, texts, embeddings
_GAIN = 0.5  # of the error is left when the weights that scaling leaves are re-fitted

COST = {"asr": 1, "refit": 6, "best": 8}  # time, about, in units of asr's

Accept = Callable[[RepairResult], bool]  # whether what else is asked for, gates, holds


def climb(
    rungs: Sequence[RepairOptions],
    repair: Callable[[RepairOptions], RepairResult],
    accept: Accept | None = None,
    thorough: bool = False,
) -> RepairResult:
    """Try ``rungs``, the cheapest first, until one is good enough; else take the best of them.

    A rung in the middle is left out when it cannot be expected to do, but not if ``thorough``: with
    few samples the strongest recipe is not always the best.
    """
    tried: list[Rung] = []
    best: tuple[Rung, RepairResult] | None = None  # no other model is kept
    for options in rungs:
        hopeless = bool(tried) and tried[-1].excess * _GAIN > 1
        if hopeless and not thorough and options is not rungs[-1]:
            continue
        result = repair(options)
        found = excess(result.repaired_outputs)
        accepted = accept is None or accept(result)
        rung = Rung(options.recipe, found, accepted, taken=False, seconds=result.seconds)
        tried.append(rung)
        if best is None or _order(rung) < _order(best[0]):
            best = rung, result
        if rung.enough:
            break
    assert best is not None, "there is a rung"
    records = tuple(replace(rung, taken=rung is best[0]) for rung in tried)
    return replace(best[1], rungs=records)


def _order(rung: Rung) -> tuple[bool, float]:
    """The better of two rungs comes first."""
    return not rung.accepted, rung.excess


def excess(outputs: Mapping[str, OutputMatch]) -> float:
    """The worst output's relative error over what is good enough for it; at most 1 is enough."""
    return max((_excess(match) for match in outputs.values()), default=math.inf)


def _excess(match: OutputMatch) -> float:
    if math.isnan(match.relative_error):  # text, or detections of another number
        return math.inf
    one_each = match.agreement is not None and match.answers == match.samples
    return match.relative_error / (ONE_ANSWER if one_each else ANYTHING)

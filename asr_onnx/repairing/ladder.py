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
    tries: list[tuple[Rung, RepairResult]] = []
    for number, options in enumerate(rungs):
        last = number == len(rungs) - 1
        if tries and not last and not thorough and tries[-1][0].excess * _GAIN > 1:
            continue
        result = repair(options)
        found = excess(result.repaired_outputs)
        accepted = accept is None or accept(result)
        rung = Rung(options.recipe, found, accepted, taken=False, seconds=result.seconds)
        tries.append((rung, result))
        if rung.enough:
            break
    best, result = min(tries, key=lambda t: (not t[0].accepted, t[0].excess))
    records = tuple(replace(rung, taken=rung is best) for rung, _ in tries)
    return replace(result, rungs=records)


def excess(outputs: Mapping[str, OutputMatch]) -> float:
    """The worst output's relative error over what is good enough for it; at most 1 is enough."""
    return max((_excess(match) for match in outputs.values()), default=math.inf)


def _excess(match: OutputMatch) -> float:
    if math.isnan(match.relative_error):  # text, or detections of another number
        return math.inf
    one_each = match.agreement is not None and match.answers == match.samples
    return match.relative_error / (ONE_ANSWER if one_each else ANYTHING)

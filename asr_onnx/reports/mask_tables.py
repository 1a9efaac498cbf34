"""Tell whether models hold their masks: lines for the terminal, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from asr_onnx.errors import AsrError
from asr_onnx.evaluation.gates import Check, failed
from asr_onnx.provenance import versions
from asr_onnx.pruning.mask_check import MaskCheck
from asr_onnx.reports.comparison_tables import checked

TOLD = 5  # sites told of, of those that break a pattern
Checked = Mapping[str, MaskCheck | AsrError]  # by the model's path; or why it cannot be checked


def to_dict(found: Checked, options: Mapping[str, Any], **provenance: object) -> dict[str, Any]:
    """All that was found as JSON can hold it, with ``provenance`` (files) as is."""
    checks = [_check(name, result, options) for name, result in found.items()]
    return {
        "asr_onnx_check": 1,
        "versions": versions(),
        **provenance,
        "options": dict(options),
        "models": [_model(name, result) for name, result in found.items()],
        "checks": checked(checks),
        "failures": [asdict(f) for f in failed(checks)],
    }


def passed(result: MaskCheck) -> str:
    """What there is to say of a model that holds its mask."""
    left = f"; {len(result.left)} left alone" if result.left else ""
    zeros = f"{result.share:.2%} of {result.weights:,} weights are zero"
    if result.pattern:
        some = f"{len(result.sites) - len(result.crowded)} of " if result.crowded else ""
        return f"{result.pattern} in {some}{_sites(len(result.sites))}, {zeros}{left}"
    return f"{zeros} in {_sites(len(result.sites))}{left}"


def violations(result: MaskCheck) -> Iterator[str]:
    """A line for each site that breaks the pattern, or one for a model with too few zeros."""
    if result.passed:
        return
    if result.pattern and result.sparsity is not None:
        yield (
            f"{result.counted:,} of {result.weights:,} weights are zero where {result.pattern} "
            f"holds ({result.counted / result.weights:.2%}), {result.wanted:,} were asked for: it "
            f"holds in {len(result.sites) - len(result.crowded)} of {_sites(len(result.sites))}"
        )
    elif result.pattern and (broken := result.crowded):
        n, m = result.pattern.kept, result.pattern.group
        for s in broken[:TOLD]:
            yield (
                f"'{s.name}' breaks {result.pattern}: {s.crowded:,} of {s.groups:,} groups of {m} "
                f"have more than {n} weight{'s' * (n > 1)}"
            )
        if len(broken) > TOLD:
            more = len(broken) - TOLD
            yield f"and {more} more of {_sites(len(result.sites))} break {result.pattern}"
    elif result.zeros < result.wanted:
        dense = sorted(result.sites, key=lambda s: s.share)[:TOLD]
        fewest = ", ".join(f"'{s.name}' {s.share:.1%}" for s in dense)
        yield (
            f"{result.zeros:,} of {result.weights:,} weights are zero ({result.share:.2%}), "
            f"{result.wanted:,} were asked for: fewest in {fewest}"
        )
    if not result.zeros:
        yield "no weight is zero: not pruned, or whole channels are gone, which leaves no mask"


def _sites(count: int) -> str:
    return f"{count} site{'s' * (count != 1)}"


def _check(name: str, result: MaskCheck | AsrError, options: Mapping[str, Any]) -> Check:
    """The model's mask as a gate."""
    pattern, sparsity = options["pattern"], options["sparsity"]
    gate = f"--pattern {pattern}" if sparsity is None else "--sparsity"
    lower, bound = sparsity is not None, 0.0 if sparsity is None else float(sparsity)
    where = f" where {pattern} holds" if pattern else ""
    what = f"share of zeros{where}" if lower else f"groups that break {pattern}"
    if isinstance(result, AsrError):
        return Check(name, gate, what, None, bound, lower, f"cannot be checked: {result}")
    value = result.counted / result.weights if lower else sum(s.crowded for s in result.sites)
    return Check(name, gate, what, float(value), bound, lower, "; ".join(violations(result)))


def _model(name: str, result: MaskCheck | AsrError) -> dict[str, Any]:
    if isinstance(result, AsrError):
        unknown = dict.fromkeys(("weights", "zeros", "zero_share", "wanted"))
        return {
            "name": name, "passed": False, "error": str(result), **unknown, "sites": [], "left": [],
        }  # fmt: skip
    return {
        "name": name,
        "passed": result.passed,
        "error": None,
        "weights": result.weights,
        "zeros": result.zeros,
        "zero_share": result.share,
        "wanted": result.wanted,
        "sites": [asdict(s) for s in result.sites],
        "left": [asdict(s) for s in result.left],
    }

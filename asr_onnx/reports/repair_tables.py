"""Tell what a repair did: a table for the terminal, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.provenance import plain, versions
from asr_onnx.pruning.eligibility import eligibility
from asr_onnx.pruning.patterns import NM
from asr_onnx.recipes import LADDER
from asr_onnx.repairing.ladder import COST
from asr_onnx.repairing.result import RepairResult, Rung, SiteReport, larger
from asr_onnx.repairing.verdict import Judgement
from asr_onnx.reports import comparison_tables, engine_tables
from asr_onnx.reports.costs import change, over
from asr_onnx.reports.matches import CAPTION, HEADS, cells, one_answer
from asr_onnx.reports.page import number

KEPT = 10  # nodes in float32 told of
WORST = 10  # sites told of unless asked for all

_OF_COMPARISON = ("samples", "preprocessing", "labels", "class_output", "topk", "dense")


def to_dict(result: RepairResult, **provenance: object) -> dict[str, Any]:
    """The whole result as JSON can hold it, with ``provenance`` (files, preprocessing) as is."""
    return {
        "asr_onnx_report": 3,
        "versions": versions(),
        **provenance,
        "options": result.options.to_dict(),
        "device": result.device,
        "seconds": round(result.seconds, 3),
        "images": {"solve": result.solve_images, "held_out": result.held_out_images},
        "sparsity": result.sparsity,
        "cost": _cost(result),
        "outputs": {
            "pruned": {k: _values(v) for k, v in result.pruned_outputs.items()},
            "repaired": {k: _values(v) for k, v in result.repaired_outputs.items()},
        },
        "metrics": plain(result.metrics),
        "channels": [asdict(width) for width in result.widths],
        "idle_channels": result.idle,
        "integers": _integers(result),
        "kept_float32": [asdict(s) for s in result.kept_float32],
        "float16_rounding": plain(result.rounding),
        "float16_tiny_weights": result.tiny,
        "rungs": [plain(asdict(rung)) for rung in result.rungs],
        "allocated": [plain(asdict(way)) for way in result.allocated],
        "sites": [_site(s) for s in result.sites],
        "skipped": [asdict(s) for s in result.skipped],
        "spared": list(result.spared),
        "sparse_kernels": _sparse_kernels(result),
        "samples": result.answers.to_dict() if result.answers else None,
    }


def _sparse_kernels(result: RepairResult) -> list[dict[str, Any]] | None:
    """Which layers TensorRT's could take, of a model that was asked to be N:M."""
    if not isinstance(result.options.pattern, NM):
        return None
    return engine_tables.rows(eligibility(result.model))


def judgement_dict(
    judgement: Judgement, accuracy: Comparison | None = None, data: Path | None = None
) -> dict[str, Any]:
    """Gates, failures and accuracy as JSON can hold them, for ``to_dict``."""
    found: dict[str, Any] = {
        "gates": plain(asdict(judgement.gates)),
        "failures": [asdict(f) for f in judgement.failures],
        "checks": comparison_tables.checked(judgement.checks),
        "accuracy": None,
    }
    if accuracy:
        content = comparison_tables.to_dict(accuracy, judgement.gates)
        found["accuracy"] = {
            "data": str(data),
            **{key: content[key] for key in _OF_COMPARISON},
            "repaired": content["models"][0],
        }
    return found


def _cost(result: RepairResult) -> dict[str, dict[str, Any]] | None:
    """What the model cost before and does after, and the ratio; ``None`` if it was not told."""
    if result.cost_before is None:
        return None
    before, after = asdict(result.cost_before), asdict(result.cost)
    return {"before": before, "after": after, "ratios": over(after, before)}


def _integers(result: RepairResult) -> dict[str, Any] | None:
    if result.integers is None:
        return None
    found: dict[str, Any] = plain(asdict(result.integers))
    return found | {"rounded_to_zero": result.rounded_to_zero}


def _values(match: OutputMatch) -> dict[str, Any]:
    found: dict[str, Any] = plain(asdict(match))
    return found


def _site(site: SiteReport) -> dict[str, Any]:
    values = asdict(site) | {"density": site.density, "density_before": site.density_before}
    for name in ("gamma", "reliability"):
        values[name] = [float(f"{v:.6g}") for v in getattr(site, name)]
    found: dict[str, Any] = plain(values)
    return found


def summary(result: RepairResult, judgement: Judgement, written: Path | None) -> Iterator[str]:
    """The verdict first, then what it rests on; lines for a terminal of 80 columns."""
    verdict = "passed" if judgement.passed else "rejected"
    yield f"{verdict}: {written or 'nothing written'}"
    for failure in judgement.failures:
        yield f"  {failure.reason}"
    yield (
        f"{result.sparsity:.2%} zeros, recipe {result.options.recipe}, {result.seconds:.1f} s on "
        f"{result.device}"
    )
    if result.spared:
        count = len(result.spared) + sum(s.pruned for s in result.sites)
        yield (
            f"{len(result.spared)} of {count} layers that can have {result.options.pattern} stay "
            "dense: it would cost them most"
        )
    if found := result.integers:
        yield (
            f"int8 for {found.engine}: {found.products} products, {found.repaired} of them "
            f"repaired, {found.activations} activations; {result.rounded_to_zero:,} weights "
            "rounded to zero"
        )
    if result.widths:
        before, after = (sum(getattr(w, n) for w in result.widths) for n in ("before", "after"))
        whole = sum(w.after == w.before for w in result.widths)
        yield (
            f"{before - after:,} of {before:,} channels removed, {whole} of {len(result.widths)} "
            "groups whole"
        )
    if cost := _cost(result):
        yield change(cost)
    if result.idle:
        yield f"at least {result.idle:,} channels do nothing: compact removes them, exactly"
    if result.options.halves:
        yield from _halved(result)
    yield f"{result.solve_images} samples solved on, {result.held_out_images} held out"
    yield from rungs(result)
    yield from allocated(result)


def _halved(result: RepairResult) -> Iterator[str]:
    off = max((result.rounding or {}).values(), default=0.0)
    stay = f"{len(result.kept_float32)} nodes stay in float32"
    yield f"float16: {stay}; rounding takes the outputs off by {off:.1e} of their spread"
    if result.tiny:
        yield f"  {result.tiny:,} weights were below float16's smallest number and became it"


def float32_table(result: RepairResult) -> Table | None:
    """What stayed float32 in a model of float16, and why; the first of them."""
    kept = result.kept_float32
    if not kept:
        return None
    more = len(kept) - KEPT
    table = Table(
        title=f"{len(kept)} nodes in float32",
        caption=f"and {more} more, see the JSON report" if more > 0 else None,
    )
    for name in ("node", "operator", "reason"):
        table.add_column(name, overflow="fold")
    for skipped in kept[:KEPT]:
        table.add_row(skipped.name, skipped.op, skipped.reason)
    return table


def worst_sites(result: RepairResult, count: int = WORST, all_by: str = "-v") -> Table:
    """The sites whose output is farthest from the dense network's, the worst first.

    ``all_by``: what gives the others.
    """
    sites = sorted(result.sites, key=lambda s: -s.error_repaired)[:count]
    more = len(result.sites) - len(sites)
    table = Table(
        title=f"The {len(sites)} worst of {len(result.sites)} sites" if more else "Sites",
        caption="error, var: of the output, over the dense network's variance, held-out images"
        + (f"; {all_by}: {more} more" if more else ""),
    )
    table.add_column("site", overflow="fold")
    for name in ("density", "dead", "error pruned", "repaired", "var repaired"):
        table.add_column(name, justify="right")
    for s in sites:
        table.add_row(
            s.node or s.name,
            f"{s.density:.1%}",
            f"{s.dead}/{len(s.gamma)}",
            f"{s.error_pruned:.3f}",
            f"{s.error_repaired:.3f}",
            f"{s.variance_repaired:.2f}",
        )
    return table


def site_table(result: RepairResult) -> Table:
    """One row per site, and a row of totals."""
    table = Table(
        title="Sites", caption="var: output variance over the dense network's, held-out images"
    )
    table.add_column("site", overflow="fold")
    for name in ("weights", "density", "dead", "scale", "var pruned", "var repaired"):
        table.add_column(name, justify="right")
    for s in result.sites:
        table.add_row(
            s.node or s.name,
            f"{s.weights:,}",
            f"{s.density_before:.1%} → {s.density:.1%}",
            f"{s.dead}/{len(s.gamma)}",
            f"{s.gamma.min():.2f} … {s.gamma.max():.2f}",
            f"{s.variance_pruned:.2f}",
            f"{s.variance_repaired:.2f}",
        )
    pruned = [s for s in result.sites if s.pruned or s.name in result.spared]
    weights = sum(s.weights for s in pruned)
    before = 1 - sum(s.zeros_before for s in pruned) / weights
    table.add_section()
    table.add_row(
        "these and those left dense" if result.spared else "all pruned sites",
        f"{weights:,}",
        f"{before:.1%} → {1 - result.sparsity:.1%}",
        f"{sum(s.dead for s in pruned)}/{sum(len(s.gamma) for s in pruned)}",
    )
    return table


def output_table(result: RepairResult) -> Table:
    """How far the pruned and the repaired model are from the dense one, output by output."""
    images = result.held_out_images or result.solve_images
    kind = "held-out" if result.held_out_images else "calibration (none held out)"
    table = Table(
        title=f"Against the dense model, {images} {kind} images",
        caption=CAPTION,
    )
    table.add_column("output", overflow="fold")
    for name in ("model", *HEADS):
        table.add_column(name, justify="right")
    models = {"pruned": result.pruned_outputs, "repaired": result.repaired_outputs}
    for output in result.repaired_outputs:
        for model, matches in models.items():
            table.add_row(output, model, *cells(_values(matches[output])))
    return table


def metric_table(result: RepairResult) -> Table | None:
    """What the user's metric gives, if there is one."""
    if not result.metrics:
        return None
    table = Table(title="Metrics of --metric-script", caption="higher is better")
    table.add_column("metric", overflow="fold")
    for model in result.metrics:
        table.add_column(model, justify="right")
    for name in result.metrics["repaired"]:
        values = (found.get(name) for found in result.metrics.values())
        table.add_row(name, *(number(v, 4) for v in values))
    return table


def rungs(result: RepairResult) -> Iterator[str]:
    """What recipe auto tried and why it stopped, and what the next rung would cost; a line each."""
    if not result.rungs:
        return
    tried = ", ".join(f"{r.recipe} {r.excess:.2f}{_note(r)}" for r in result.rungs)
    (taken,) = (r for r in result.rungs if r.taken)
    why = "good enough" if taken.enough else "the best, though not good enough"
    yield f"recipe auto took {taken.recipe}, {why}"
    yield f"  errors over what is good enough: {tried}"
    left = LADDER[LADDER.index(result.rungs[-1].recipe) + 1 :]
    if left and taken.enough:
        seconds = taken.seconds * COST[left[-1]] / COST[taken.recipe]
        yield f"  --recipe {left[-1]} would take about {seconds:.0f} s, not {taken.seconds:.0f}"


_SPARED_BY = {"error": "predicted errors", "mixed": "the squares of their scores"}


def allocated(result: RepairResult) -> Iterator[str]:
    """What allocation search tried; a line, if any."""
    if len(result.allocated) > 1:
        (taken,) = (way for way in result.allocated if way.taken)
        tried = ", ".join(f"{way.by} {way.excess:.2f}" for way in result.allocated)
        how = f"densities by {taken.by}"
        if result.widths:
            how = f"widths by what {taken.by} lose"
        elif result.options.structure.density is not None:
            how = f"which layers stay dense by {_SPARED_BY[taken.by]}"
        yield f"allocation search took {how}"
        yield f"  errors over what is good enough: {tried}"


def _note(rung: Rung) -> str:
    return "" if rung.accepted else " (fails a gate)"


def remarks(result: RepairResult) -> Iterator[str]:
    """What makes figures say less than they seem to, a sentence each."""
    yield from one_answer({n: _values(m) for n, m in result.repaired_outputs.items()})
    if result.integers is None:
        return
    cure = ""
    if result.integers.engine != "onnxruntime":
        cure = (
            ": x64 without VNNI saturates sums of 16 bits; --for onnxruntime writes weights that "
            "do not, and its session option session.x64quantprecision=1 has room for these"
        )
    for name, fused in result.integers.fused.items():
        exact = result.repaired_outputs[name].relative_error
        if larger(exact, fused.relative_error):
            yield (
                f"computed in integers by ONNX Runtime on this machine, '{name}' is off by "
                f"{fused.relative_error:.3f} of its spread, not {exact:.3f}{cure}"
            )

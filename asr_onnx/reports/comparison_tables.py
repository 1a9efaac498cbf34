"""Tell how models compare: tables and sentences for the terminal, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from asr_onnx.evaluation.comparison import Comparison, ModelReport
from asr_onnx.evaluation.footprint import zero_share
from asr_onnx.evaluation.gates import Check, Gates
from asr_onnx.maths.intervals import Accuracy
from asr_onnx.provenance import plain, versions
from asr_onnx.reports.costs import CAPTION as OF_COSTS
from asr_onnx.reports.costs import (
    FIGURES,
    SPARSE,
    bytes_text,
    count_text,
    figures,
    ratios,
    times_text,
)
from asr_onnx.reports.matches import CAPTION, HEADS, cells, one_answer
from asr_onnx.reports.page import number


def to_dict(comparison: Comparison, gates: Gates, **provenance: object) -> dict[str, Any]:
    """The whole comparison as JSON can hold it, with ``provenance`` (files, data) as is."""
    found: dict[str, Any] = plain(
        {
            "asr_onnx_comparison": 4,
            "versions": versions(),
            **provenance,
            "device": comparison.device,
            "preprocessing": comparison.preprocessing,
            "samples": comparison.samples,
            "labels": comparison.labels,
            "class_output": comparison.class_output,
            "topk": comparison.k,
            "dense": _model(comparison.dense, comparison.dense),
            "models": [_model(m, comparison.dense) for m in comparison.models],
            "gates": asdict(gates),
            "failures": [asdict(f) for f in comparison.failures(gates)],
            "checks": checked(comparison.checks(gates)),
        }
    )
    return found


def checked(found: Sequence[Check]) -> list[dict[str, Any]]:
    """Gates as they were judged, as JSON can hold them."""
    return [plain(asdict(c)) | {"outcome": c.outcome} for c in found]


def _model(report: ModelReport, dense: ModelReport) -> dict[str, Any]:
    values = asdict(report)
    values["ratios"] = ratios(values, asdict(dense))
    for name in ("top1", "topk"):
        accuracy = getattr(report, name)
        if accuracy:
            values[name]["share"] = accuracy.share
    for name in ("against_dense", "against_previous"):
        test = getattr(report, name)
        if test:
            values[name]["significant"] = test.significant
    values["footprint"]["zero_share"] = zero_share(report.footprint)
    return values


def tables(comparison: Comparison) -> list[Table]:
    """Accuracies if there are labels, outputs against dense, metrics, size and speed, zeros."""
    found = [accuracy_table(comparison)] if comparison.labels else []
    metrics = metric_table(comparison)
    found += [output_table(comparison), *([metrics] if metrics else [])]
    return [*found, cost_table(comparison), zero_table(comparison)]


def accuracy_table(comparison: Comparison) -> Table:
    """Accuracy of each model with its 95 % confidence interval."""
    table = _table(
        f"Accuracy on {comparison.samples} samples",
        ("top-1", "95 %") + ((f"top-{comparison.k}", "95 %") if comparison.k else ()),
        f"labels: {comparison.labels}; output '{comparison.class_output}'",
    )
    for m in (comparison.dense, *comparison.models):
        row = _accuracy(m.top1) + (_accuracy(m.topk) if comparison.k else ())
        table.add_row(m.name, *row)
    return table


def output_table(comparison: Comparison) -> Table:
    """How alike the outputs of each model are to the dense model's."""
    table = _table(
        f"Outputs against {comparison.dense.name}, {comparison.samples} samples",
        ("output", *HEADS),
        CAPTION,
    )
    for m in comparison.models:
        for name, match in m.outputs.items():
            table.add_row(m.name, name, *cells(plain(asdict(match))))
    return table


def metric_table(comparison: Comparison) -> Table | None:
    """What the user's metric gives, if there is one; the dense model's is against itself."""
    if not comparison.dense.metrics:
        return None
    names = tuple(comparison.dense.metrics)
    table = _table("Metrics of --metric-script", names, "higher is better")
    for m in (comparison.dense, *comparison.models):
        table.add_row(m.name, *(number((m.metrics or {}).get(n), 4) for n in names))
    return table


def remarks(comparison: Comparison) -> Iterator[str]:
    """What makes figures say less than they seem to, a sentence each."""
    for m in comparison.models[:1]:  # it is about the dense model
        yield from one_answer({n: plain(asdict(match)) for n, match in m.outputs.items()})


def cost_table(comparison: Comparison) -> Table:
    """Work, weights, memory, bytes and time; below a model's what they are to the dense one's."""
    timed = comparison.dense.latency
    models = (comparison.dense, *comparison.models)
    columns = [head for head, _ in FIGURES.values()]
    caption = OF_COSTS
    if timed:
        columns.append("time")
        caption += (
            f"; time: median of {timed.rounds} rounds side by side on {comparison.device}, "
            f"batch of {timed.batch}"
        )
        if not all(m.latency and m.latency.reliable for m in models):
            caption += "; ?: not reliable, the machine is busy and the rounds differ too much"
    table = _table("Size and speed", columns, caption)
    for m in models:
        found = _model(m, comparison.dense)
        row = [told(figures(found)[name]) for name, (_, told) in FIGURES.items()]
        over = [times_text(found["ratios"][name]) for name in FIGURES]
        if m.latency:
            row.append(f"{m.latency.median * 1e3:.2f} ms")
            sure = m.latency.reliable and timed and timed.reliable
            over.append(times_text(m.latency.ratio) + ("" if sure else " ?"))
        table.add_section()
        table.add_row(m.name, *row)
        if m is not comparison.dense:
            table.add_row("  × dense", *over)
    return table


def zero_table(comparison: Comparison) -> Table:
    """Zeros and dead channels, and what they may save where a file is packed or an engine skips."""
    table = _table(
        "Zeros",
        ("zeros", "dead", "zipped", "non-zero MACs", "× dense"),
        f"dead: output channels without a weight left; {SPARSE}",
    )
    for m in (comparison.dense, *comparison.models):
        f, share = m.footprint, zero_share(m.footprint)
        ratio = _model(m, comparison.dense)["ratios"]["effective_macs"]
        table.add_row(
            m.name,
            "–" if share is None else f"{share:.1%}",
            f"{f.dead}/{f.channels}" if f.channels else "–",
            bytes_text(f.compressed),
            count_text(m.cost.effective_macs),
            times_text(ratio),
        )
    return table


def verdicts(comparison: Comparison) -> Iterator[str]:
    """A sentence per paired test: every model and the dense one, then consecutive models."""
    previous = comparison.dense
    for m in comparison.models:
        if m.against_dense:
            yield f"{m.name} against {comparison.dense.name}: {m.against_dense}"
        if m.against_previous:
            yield f"{m.name} against {previous.name}: {m.against_previous}"
        previous = m


def interval_text(accuracy: Accuracy) -> str:
    """``91.2% [88.4% … 93.4%]``"""
    share, interval = _accuracy(accuracy)
    return f"{share} [{interval}]"


def _accuracy(accuracy: Accuracy | None) -> tuple[str, str]:
    if accuracy is None:
        return "–", "–"
    return f"{accuracy.share:.1%}", f"{accuracy.low:.1%} … {accuracy.high:.1%}"


def _table(title: str, columns: Sequence[str], caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption)
    table.add_column("model", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=name != "output", overflow="fold")
    return table

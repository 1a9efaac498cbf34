"""Markdown of ``asr-onnx repair``: what ``repair_tables.to_dict`` gives, or JSON read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_onnx.reports import amount_search, comparison_markdown
from asr_onnx.reports import repair_page as page
from asr_onnx.reports.gate_markdown import counted, gates
from asr_onnx.reports.markdown import code, document, paragraphs, section, table, text
from asr_onnx.reports.matches import CAPTION, HEADS, cells
from asr_onnx.reports.page import given, number, value

Report = Mapping[str, Any]


def markdown(report: Report) -> str:
    """The verdict and the gates, then outputs, accuracy and cost."""
    rejected = bool(report["failures"])
    return document(
        [f"## asr-onnx: {'rejected' if rejected else 'passed'}, {code(_name(report))}", ""],
        [f"**{counted(report['checks'])}.** {text(page.verdict(report))}", ""],
        gates(report["checks"]),
        paragraphs(n for n in page.notes(report) if not n.startswith("Rejected: ")),
        _outputs(report),
        _accuracy(report["accuracy"]) if report["accuracy"] else [],
        _metrics(report),
        _costs(report),
        _search(report["search"]) if report.get("search") else [],
        _options(report),
        comparison_markdown.about(report),
    )


def _name(report: Report) -> str:
    return str(report.get("output") or report.get("rejected") or page.model_path(report))


def _outputs(report: Report) -> list[str]:
    outputs = report["outputs"]
    rows = (
        (code(name), model, *cells(outputs[model][name]))
        for name in outputs["repaired"]
        for model in ("pruned", "repaired")
    )
    title = f"Outputs against the dense model's, {page.checked_on(report)}"
    return section(title, table(("output", "model", *HEADS), rows, left=2), paragraphs([CAPTION]))


def _accuracy(found: Mapping[str, Any]) -> list[str]:
    return comparison_markdown.accuracy({**found, "models": [found["repaired"]]})


def _metrics(report: Report) -> list[str]:
    found = report["metrics"]
    if not found:
        return []
    rows = (
        (code(name), *(number(values.get(name), 4) for values in found.values()))
        for name in found["repaired"]
    )
    return section("Metrics of the script", table(("metric", *found), rows))


def _costs(report: Report) -> list[str]:
    rows = page.costs(report)
    if not rows:
        return []
    heads = ("model", *page.COSTS.values())
    return section("Cost per sample", table(heads, ((n, *row) for n, row in rows.items())))


def _search(search: Mapping[str, Any]) -> list[str]:
    rows = (
        (row["removed"], row["recipe"], row["outcome"], "taken" if row["taken"] else "")
        for row in amount_search.rows(search)
    )
    heads = ("removed", "recipe", "outcome", "")
    told = [amount_search.headline(search), *amount_search.notes(search)]
    return section("What was tried", paragraphs(told), table(heads, rows, left=4))


def _options(report: Report) -> list[str]:
    """The options that say what was done, out of sight until they are asked for."""
    rows = ((code(name), text(value(x))) for name, x in given(report["options"]).items())
    lines = table(("option", "value"), rows, left=2)
    return ["<details><summary>Options</summary>", "", *lines, "</details>", ""]

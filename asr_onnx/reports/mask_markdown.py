"""Markdown of ``asr-onnx check``: what ``mask_tables.to_dict`` gives, or JSON read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_onnx.reports.comparison_markdown import about
from asr_onnx.reports.gate_markdown import counted, gates
from asr_onnx.reports.markdown import code, document, paragraphs, section, table, text
from asr_onnx.reports.page import share

_FEWEST = 10  # sites told of, of a model that has too few zeros


def markdown(content: Mapping[str, Any]) -> str:
    """The verdict and a row for each model, then the sites of those that do not hold the mask."""
    word = "failed" if content["failures"] else "passed"
    return document(
        [f"## asr-onnx check: {word}", ""],
        paragraphs([f"{counted(content['checks'])}."]),
        gates(content["checks"]),
        *(_sites(m) for m in content["models"] if m["sites"] and not m["passed"]),
        about(content),
    )


def _sites(model: Mapping[str, Any]) -> list[str]:
    """The sites of a model, those with the most broken groups, or the fewest zeros, first."""
    sites = sorted(model["sites"], key=lambda s: (-s["crowded"], s["zeros"] / s["weights"]))
    sites = [s for s in sites if s["crowded"]] or sites[:_FEWEST]
    rows = (
        (
            code(s["name"]),
            text(s["op"]),
            f"{s['weights']:,}",
            share(s["zeros"] / s["weights"]),
            f"{s['crowded']:,} of {s['groups']:,}" if s["groups"] else "–",
        )
        for s in sites
    )
    heads = ("site", "operator", "weights", "zeros", "groups that break it")
    return section(f"Sites of {code(model['name'])}", table(heads, rows, left=2))

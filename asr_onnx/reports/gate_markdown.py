"""The gates of a report in Markdown: each that was set, with its figure, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asr_onnx.reports.markdown import code, paragraphs, section, table, text
from asr_onnx.reports.page import NONE, number

Check = Mapping[str, Any]  # as ``comparison_tables.checked`` has it, or JSON read back
_WORDS = {"passed": "passed", "failed": "**failed**", "waived": "failed, waived"}


def bound(check: Check) -> str:
    """What the value has to be: ``at least 0.9``; empty where there is none."""
    if check["bound"] is None:
        return ""
    return f"{'at least' if check['lower'] else 'at most'} {float(check['bound']):.6g}"


def figure(check: Check) -> str:
    """What was measured."""
    return NONE if check["value"] is None else number(float(check["value"]), 4)


def counted(checks: Sequence[Check]) -> str:
    """``2 of 3 gates passed``, and how many failed and were waived"""
    outcomes = [c["outcome"] for c in checks]
    waived = f", {n} waived" if (n := outcomes.count("waived")) else ""
    passed = outcomes.count("passed")
    return f"{passed} of {len(checks)} gate{'s' * (len(checks) != 1)} passed{waived}"


def gates(checks: Sequence[Check]) -> list[str]:
    """A section with a row for each, and why those fail that do."""
    if not checks:
        return section("Gates", paragraphs(["No gate was set."]))
    rows = [
        (
            code(c["model"]),
            _gate(c["gate"]),
            text(c["what"]),
            figure(c),
            bound(c) or NONE,
            _WORDS[c["outcome"]],
        )
        for c in checks
    ]
    heads = ("model", "gate", "of", "measured", "wanted", "result")
    reasons = [f"- {code(c['model'])}: {text(c['reason'])}" for c in checks if c["reason"]]
    return section("Gates", table(heads, rows, left=3), [*reasons, ""] if reasons else [])


def _gate(name: str) -> str:
    return code(name) if name.startswith("--") else text(name)

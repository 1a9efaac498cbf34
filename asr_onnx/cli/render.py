"""``asr-onnx render``: the page of a JSON report."""

from __future__ import annotations

from pathlib import Path

import click

from asr_onnx.cli.options import FILE, FORCE, QUIET, command, group, output
from asr_onnx.cli.terminal import Terminal
from asr_onnx.reports.files import check_reports, naming_damage, read_report, write_reports


@command()
@click.argument("report", type=FILE)
@group("Output", output("REPORT with .html"), FORCE, QUIET)
def render(report: Path, output: Path | None, force: bool, quiet: bool) -> None:
    """Write REPORT, JSON of repair, compare or sweep, as an HTML page (without sample pictures)."""
    target = output or report.with_suffix(".html")
    check_reports([target], report, force)
    content = read_report(report)
    with naming_damage(report):
        write_reports([target], content)
    Terminal(quiet=quiet).say(f"→ {target}")

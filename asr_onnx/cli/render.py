"""``asr-onnx render``: a JSON report in another format."""

from __future__ import annotations

from pathlib import Path

import click

from asr_onnx.cli.options import FILE, FORCE, QUIET, command, group, output
from asr_onnx.cli.terminal import Terminal
from asr_onnx.reports.files import (
    check_reports,
    kind_of,
    naming_damage,
    read_report,
    write_reports,
)


@command()
@click.argument("report", type=FILE)
@group("Output", output("REPORT with .html"), FORCE, QUIET)
def render(report: Path, output: Path | None, force: bool, quiet: bool) -> None:
    """Write REPORT, JSON of repair, compare or sweep, as an HTML page (without sample pictures).

    With -o FILE.md as Markdown, with -o FILE.xml its quality gates as JUnit XML; of check, too.
    """
    target = output or report.with_suffix(".html")
    check_reports([target], report, force)
    content = read_report(report)
    check_reports([target], report, force, kind=kind_of(content))
    with naming_damage(report):
        write_reports([target], content)
    Terminal(quiet=quiet).say(f"→ {target}")

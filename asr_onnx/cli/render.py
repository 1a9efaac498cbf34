"""``asr-onnx render``: the page of a JSON report."""

from __future__ import annotations

from pathlib import Path

import click
from jinja2 import TemplateError

from asr_onnx.cli.options import FILE, FORCE, QUIET, command, group, output
from asr_onnx.cli.terminal import Terminal
from asr_onnx.errors import AsrError
from asr_onnx.reports.files import check_reports, read_report, write_reports


@command()
@click.argument("report", type=FILE)
@group("Output", output("REPORT with .html"), FORCE, QUIET)
def render(report: Path, output: Path | None, force: bool, quiet: bool) -> None:
    """Write REPORT, JSON of repair, compare or sweep, as an HTML page (without sample pictures)."""
    target = output or report.with_suffix(".html")
    check_reports([target], report, force)
    content = read_report(report)
    try:
        write_reports([target], content)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, TemplateError) as error:
        raise AsrError(f"report '{report}' is damaged ({type(error).__name__}: {error})") from None
    Terminal(quiet=quiet).say(f"→ {target}")

"""Progress where there is no terminal: few lines, and how long it will take."""

from __future__ import annotations

import io

from asr_onnx.cli import progress
from asr_onnx.cli.terminal import Terminal
from asr_onnx.reports import progress as bars


def test_lines_tell_how_long_it_will_take_and_begin_anew_with_each_pass(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with progress.reporting(Terminal(file=out, width=200)) as report:
        for name in ("asr", "best"):
            for done in range(40):
                report(done, 40, f"{name}: [red]x[/red]")
                now[0] += 3.0
    lines = out.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[0] == "0/40 asr: [red]x[/red]"
    assert lines[1] == "4/40 asr: [red]x[/red], about 108 s left"
    assert lines[10] == "0/40 best: [red]x[/red]"
    assert lines[15].endswith("about 60 s left")

"""Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars

from asr_onnx.cli.terminal import Terminal
from asr_onnx.parallel import Progress
from asr_onnx.reports.printable import printable

_LINES = 10  # plain lines a run may print


@contextmanager
def reporting(console: Terminal, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function to call with (done, total, what)."""
    if quiet:
        yield lambda done, total, what: None
        return
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left, about"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading calibration data", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=printable(what)
        )


def _plain(console: Terminal) -> Progress:
    shown, began = -1, time.monotonic()

    def report(done: int, total: int, what: str) -> None:
        nonlocal shown, began
        if done == 0:  # another recipe, another pass
            shown, began = -1, time.monotonic()
        tenth = done * _LINES // max(total, 1)
        if tenth > shown:
            shown = tenth
            left = (time.monotonic() - began) / done * (total - done) if done else 0.0
            more = f", about {left:.0f} s left" if left >= 1 else ""
            console.print(f"{done}/{total} {what}{more}")

    return report

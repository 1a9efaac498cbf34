"""Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asr_onnx.cli.terminal import Terminal
from asr_onnx.parallel import Progress
from asr_onnx.reports.printable import printable
from asr_onnx.reports.progress import bar, plain


@contextmanager
def reporting(console: Terminal, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function to call with (done, total, what)."""
    if quiet:
        yield lambda done, total, what: None
        return
    if not console.is_terminal:
        yield plain(console.print)
        return
    with bar(console) as shown:
        task = shown.add_task("reading calibration data", total=None)
        yield lambda done, total, what: shown.update(
            task, completed=done, total=total, description=printable(what)
        )

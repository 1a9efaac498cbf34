"""Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Report = Callable[[int, int, str], None]

_LINES = 10  # plain lines a run may print


@contextmanager
def reporting(console: Console, quiet: bool = False) -> Iterator[Report]:
    """Yield a function to call with (done, total, what)."""
    if quiet:
        yield lambda done, total, what: None
        return
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading calibration data", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def _plain(console: Console) -> Report:
    shown = -1

    def report(done: int, total: int, what: str) -> None:
        nonlocal shown
        tenth = done * _LINES // max(total, 1)
        if tenth > shown:
            shown = tenth
            console.print(f"{done}/{total} {what}", highlight=False)

    return report

"""Progress of what takes long: a bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console

from asr_onnx.parallel import Progress
from asr_onnx.reports.printable import printable

_LINES = 10  # plain lines a run may print
_PAUSE = 0.1  # seconds between two pictures in a notebook


def progress_bar() -> ProgressBar:
    """What functions take as ``progress``: ``with progress_bar() as progress: ...``.

    Without ``with`` it ends when the function lets go of it.
    """
    return ProgressBar(Console(stderr=True))


def plain(say: Callable[[str], None]) -> Progress:
    """Lines, ten for each pass, with the time that is left."""
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
            say(f"{done}/{total} {what}{more}")

    return report


def bar(console: Console, **settings: Any) -> bars.Progress:
    """A bar that goes when it is stopped."""
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left, about"),
        bars.TimeRemainingColumn(),
    )
    return bars.Progress(*columns, console=console, transient=True, **settings)


class ProgressBar:
    """Called with (done, total, what); begins with the first call, ends with ``close``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: _Notebook | _Bar | Progress | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._shown is None:
            self._shown = self._begin()
        self._shown(done, total, what)

    def _begin(self) -> _Notebook | _Bar | Progress:
        if self._console.is_jupyter:
            return _Notebook()
        if self._console.is_terminal:
            return _Bar(self._console)
        console = self._console
        return plain(lambda line: console.print(
            printable(line), markup=False, highlight=False, emoji=False, soft_wrap=True
        ))  # fmt: skip

    def close(self) -> None:
        """Take the bar away; in a notebook it says how long it took."""
        shown, self._shown = self._shown, None
        if isinstance(shown, (_Notebook, _Bar)):
            shown.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Bar:
    """On a terminal; drawn when it is told something, as nothing need ever end it."""

    def __init__(self, console: Console) -> None:
        self._bar = bar(console, auto_refresh=False)
        self._bar.start()
        console.show_cursor(True)
        self._task = self._bar.add_task("", total=None)

    def __call__(self, done: int, total: int, what: str) -> None:
        self._bar.update(
            self._task, completed=done, total=total, description=printable(what), refresh=True
        )

    def close(self) -> None:
        self._bar.stop()


class _Notebook:
    """In a notebook, without widgets: one picture that is replaced, and not too often."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._page, self._began, self._next = HTML, time.monotonic(), 0.0
        self._handle = display(HTML(""), display_id=True)

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            self._update(done, total, f"{done}/{total} {what}")

    def close(self) -> None:
        self._update(1, 1, f"done in {time.monotonic() - self._began:,.1f} s")

    def _update(self, done: int, total: int, words: str) -> None:
        picture = f'<progress value="{done}" max="{max(total, 1)}"></progress>'
        self._handle.update(self._page(f"{picture} {escape(printable(words))}"))

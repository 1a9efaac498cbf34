"""SIGINT and SIGTERM: one line that says what was written, exit code 130 or 143, nothing half done.

Imported before anything that takes time, so it imports next to nothing itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NAMED = 3  # files beyond which the line counts them

_written: list[str] = []
_shields = 0
_waiting: int | None = None
_received: int | None = None


class Interrupted(BaseException):
    """Raised in the main thread wherever a signal finds it, but not within ``shielded``."""


def end_at_once() -> None:
    """From now on end without unwinding: for imports, some of which hide exceptions of others."""
    _watch(_end)


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise ``Interrupted`` within the block, and end with the line and the exit code.

    Whatever became of the exception: imports within may have turned it into another.  A second
    signal ends at once.
    """
    _watch(_raise)
    try:
        yield
    except BaseException:
        if _received is None:
            raise
    finally:
        _watch(signal.SIG_IGN)  # the interpreter is about to go
    if _received is not None:
        sys.stderr.write(_line())
        sys.exit(128 + _received)


def wrote(path: os.PathLike[str] | str) -> None:
    """Remember a file for the line."""
    if str(path) not in _written:
        _written.append(str(path))


@contextmanager
def shielded() -> Iterator[None]:
    """Let signals wait for the end of the block, which has to be short."""
    global _shields, _waiting
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread
        return
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
        if not _shields and _waiting is not None:
            number, _waiting = _waiting, None
            signal.raise_signal(number)


def _watch(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as for jobs in a shell's background
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    if not _wait(number):
        os.write(2, _line().encode(errors="replace"))
        os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received
    if not _wait(number):
        _received = number
        end_at_once()
        raise Interrupted


def _wait(number: int) -> bool:
    """Whether the signal has to wait."""
    global _waiting
    if _shields:
        _waiting = number
    return bool(_shields)


def _line() -> str:
    more = f" and {len(_written) - _NAMED} more" if len(_written) > _NAMED else ""
    files = ", ".join(map(repr, _written[:_NAMED])) + more
    return f"interrupted: {f'written before: {files}' if files else 'nothing was written'}\n"

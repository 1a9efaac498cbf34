"""Write files whole or not at all, by way of a folder beside them that does not stay.

What is unfinished lies in a staging folder.  A killed run leaves its own behind; whoever stages
next in the same place removes it, if its owner is surely dead.  An owner holds a lock (``flock``)
on the folder, which the kernel releases with the process, whatever container that was in.  So a
folder whose name says that it was made under this very kernel is stale when its lock is free.  Of
one made elsewhere (another machine, another boot), or where there are no such locks, nothing is
known: it is stale when a day old.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from asr_onnx.errors import AsrError, UsageError
from asr_onnx.interrupts import shielded, wrote

if sys.platform != "win32":
    import fcntl

_PREFIX = ".asr-onnx-"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_DAY = 24 * 3600.0  # seconds


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``; raises ``AsrError`` naming the path when that fails."""
    try:
        with staging(path.parent) as folder:
            staged = folder / "text"
            staged.write_text(text, encoding="utf-8")
            move(staged, path)
    except OSError as error:
        raise AsrError(f"'{path}' cannot be written: {error.strerror}") from None


def check_folder(folder: Path) -> None:
    """Try, before any work, whether an output can be written there; raises ``UsageError``."""
    try:
        with staging(folder):
            pass
    except OSError as error:
        raise UsageError(
            f"folder '{folder}' of the output cannot be written to: {error.strerror}"
        ) from None


def move(staged: Path, target: Path) -> None:
    """Put a finished file in its place, replacing what is there; raises ``OSError``."""
    with shielded():
        staged.replace(target)
        wrote(target)


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` that is gone at the end; raises ``OSError`` where none can be."""
    for folder in parent.glob(f"{_PREFIX}*"):
        _clear(folder)
    with ExitStack() as stack:
        with shielded():
            folder, lock = _made(parent)
            stack.callback(_remove, folder, lock)
        yield folder


def _made(parent: Path) -> tuple[Path, int | None]:
    """A new folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_kernel()}-", dir=parent))
        with suppress(FileNotFoundError):  # it was taken for a dead one's before it was locked
            lock = _lock(folder, wait=True)
            if folder.is_dir():
                return folder, lock


def _remove(folder: Path, lock: int | None) -> None:
    with shielded():
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _clear(folder: Path) -> None:
    """Remove a folder that is stale; see above."""
    with suppress(OSError):  # another clears it, or has it locked, or it is another user's
        if folder.is_symlink() or not folder.is_dir():
            return
        age = time.time() - folder.stat().st_mtime
        ours = _kernel() and folder.name.startswith(f"{_PREFIX}{_kernel()}-")
        lock = _lock(folder, wait=False) if ours else None
        if lock is not None or age > _DAY:
            _remove(folder, lock)


def _lock(folder: Path, wait: bool) -> int | None:
    """Lock a folder: the descriptor that holds the lock, ``None`` where there are no locks.

    Raises ``BlockingIOError`` when another holds it.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None  # some network file systems
    return descriptor


@cache
def _kernel() -> str:
    """Names the running kernel, whose processes see each other's locks; empty if unknown."""
    return _BOOT.read_text().strip().replace("-", "")[:12] if _BOOT.is_file() else ""

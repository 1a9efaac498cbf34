"""Calls of a function in a child process, so that a crash, a hang or greed is a result like others.

Linux: the memory a call took is read from ``/proc``.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_CEILING = 6 << 30  # bytes of address space, so that a call cannot take the machine along


@dataclass(frozen=True)
class Outcome:
    """What a call came to: its ``value``, or its ``fault``; and what it took of memory and time."""

    job: Any
    value: Any = None
    fault: str = ""
    memory: int = 0  # bytes more than before, at most
    seconds: float = 0.0


def calls(function: Callable[[Any], Any], jobs: Iterable[Any], seconds: float) -> Iterator[Outcome]:
    """``function`` of each job, in a child process that is replaced when it dies or is too slow.

    Jobs and values are pickled; the fault of an exception is its traceback.
    """
    context = multiprocessing.get_context("spawn")
    child = None
    for job in jobs:
        if child is None:
            here, there = context.Pipe()
            child = context.Process(target=_serve, args=(function, there), daemon=True)
            child.start()
            there.close()
            here.recv()  # until all is imported
        here.send(job)
        try:
            if here.poll(seconds):
                yield Outcome(job, *here.recv())
                continue
            child.kill()
            fault = f"hang: no end within {seconds:g} s"
        except EOFError:
            child.join()
            number = -(child.exitcode or 0)
            fault = f"crash: {signal.Signals(number).name if number > 0 else f'exit {-number}'}"
        child.join()
        here.close()
        child = None
        yield Outcome(job, fault=fault, seconds=seconds)
    if child:
        here.close()
        child.join()


def _serve(function: Callable[[Any], Any], parent: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_CEILING, _CEILING))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent.send("ready")
    while True:
        try:
            job = parent.recv()
        except EOFError:
            return
        value, fault, before, start = None, "", _forget_peak(), time.perf_counter()
        try:
            value = function(job)
        except Exception:
            fault = traceback.format_exc()
        parent.send((value, fault, _status("VmHWM") - before, time.perf_counter() - start))


def _forget_peak() -> int:
    """Let the peak of this process's memory be what it has now; that, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

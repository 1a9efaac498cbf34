"""Work on independent items, some at a time, with the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_WORTH_THREADS = 1024

T = TypeVar("T")
A = TypeVar("A")

Progress = Callable[[int, int, str], None]  # called with (done, total, what)


def processors() -> int:
    """Processors this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def wide(size: int) -> bool:
    """Whether matrices of ``size`` are worth all threads; small ones lose more than they gain."""
    return size >= _WORTH_THREADS


def blas_threads(size: int) -> int:
    """Threads BLAS should have for matrices of ``size``."""
    return processors() if wide(size) else 1


def each(work: Callable[[A], T], items: Iterable[A], workers: int) -> Iterator[T]:
    """``work`` of every item, on as many threads; few results wait at a time."""
    items = list(items)
    if workers < 2 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            if len(waiting) > workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()

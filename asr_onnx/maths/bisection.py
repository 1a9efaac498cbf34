"""The largest amount that passes a test, found by halving: each try is dear, so few are made.

It assumes that what passes at an amount passes at all smaller ones, and looks once whether that
holds where it matters, just above the smallest amount that failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One try."""

    amount: int
    passed: bool


def search(
    passes: Callable[[int], bool], low: int, high: int, first: int | None, most: int
) -> tuple[Step, ...]:
    """Tries, in their order, that close in on the largest amount that ``passes``.

    ``low`` is taken to pass and ``high`` to fail, neither is tried; ``first``, between them, is
    tried first, else their middle.  At most ``most`` tries are made.  Once an amount that passes
    and the next one, which fails, are known, the amount above that is tried too: if it passes,
    passing is not monotone there, and the search goes on above it.

    >>> [step.amount for step in search(lambda amount: amount <= 86, 0, 100, 75, 9)]
    [75, 87, 81, 84, 85, 86, 88]

    Raises ``ValueError`` for a ``first`` that is not between ``low`` and ``high``.
    """
    if first is not None and not low < first < high:
        raise ValueError(f"{first} is not between {low} and {high}")
    tried: dict[int, bool] = {}
    ends = low, high
    amount = first
    while len(tried) < most:
        if amount is None:
            amount = _next(low, high, ends, tried)
        if amount is None:
            break
        tried[amount] = passes(amount)
        if tried[amount]:
            low = max(low, amount)
            failed = [a for a, passed in tried.items() if a > low and not passed]
            high = min(failed, default=ends[1])
        elif amount > low:
            high = min(high, amount)
        amount = None
    return tuple(Step(amount, passed) for amount, passed in tried.items())


def _next(low: int, high: int, ends: tuple[int, int], tried: dict[int, bool]) -> int | None:
    """What to try next; ``None`` where nothing is left to learn."""
    if high - low > 1:
        return (low + high) // 2
    above = high + 1
    known = low > ends[0] and high in tried  # both sides are more than an assumption
    return above if known and above < ends[1] and above not in tried else None

"""How long models take, side by side: what disturbs one run disturbs its neighbours too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import Feeds
from asr_onnx.errors import UsageError
from asr_onnx.execution.session import Runner

_WARM_UP = 3
_NOISE = 0.25  # quartiles farther apart, in units of the median, are those of a busy machine
_FEWEST = 5  # rounds, however slow the models are


@dataclass(frozen=True)
class Latency:
    """Time of one run on ``batch`` samples, over ``rounds``, copies to and from a GPU included.

    ``low``, ``median`` and ``high`` are the quartiles in seconds, ``ratio`` is the median over the
    first model's.
    """

    batch: int
    rounds: int
    low: float
    median: float
    high: float
    ratio: float

    @property
    def reliable(self) -> bool:
        """Whether the quartiles lie close enough together for the median to mean something."""
        return self.high - self.low <= _NOISE * self.median


def measure(
    runners: Sequence[Runner],
    feeds: Feeds,
    batch: int,
    rounds: int = 200,
    seconds: float = 5.0,
) -> list[Latency]:
    """Run all models on a ``batch`` once per round, each round starting with another one.

    Stops early after ``seconds``, but not before a few rounds.  Raises ``UsageError`` for less than
    one round.
    """
    if rounds < 1:
        raise UsageError(f"number of rounds {rounds} is not positive")
    for runner in runners:
        for _ in range(_WARM_UP):
            runner.run(feeds)
    times: list[list[float]] = []
    began = time.perf_counter()
    while len(times) < rounds:
        if len(times) >= _FEWEST and time.perf_counter() - began > seconds:
            break
        order = np.roll(np.arange(len(runners)), len(times))
        row = [0.0] * len(runners)
        for index in order.tolist():
            start = time.perf_counter()
            runners[index].run(feeds)
            row[index] = time.perf_counter() - start
        times.append(row)
    found = np.array(times)  # (rounds, models)
    quartiles = np.percentile(found, [25, 50, 75], axis=0)  # (3, models)
    ratios = quartiles[1] / quartiles[1, 0]
    return [
        Latency(batch, len(times), low, median, high, ratio)
        for (low, median, high), ratio in zip(quartiles.T.tolist(), ratios.tolist(), strict=True)
    ]

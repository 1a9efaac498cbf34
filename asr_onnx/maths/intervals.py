"""How far counted accuracies can be trusted: intervals and paired tests.

Arrays and counts in, numbers out.  The p-values are of single tests: with many models compared,
some will fall below 0.05 by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]  # where a model is right

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Accuracy:
    """``correct`` of ``total`` samples, with the bounds of a 95 % confidence interval."""

    correct: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """``correct / total``."""
        return self.correct / self.total


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same ``samples``: who alone is right how often, and the exact p-value.

    ``first_only`` samples are right in the first model and wrong in the second, ``second_only``
    the other way round.
    """

    samples: int
    first_only: int
    second_only: int
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether equal accuracies are refuted at the 5 % level."""
        return self.p_value < 1 - CONFIDENCE

    def __str__(self) -> str:
        if not self.significant:
            return f"not distinguishable on {self.samples} images (p = {self.p_value:.2g})"
        word = "better" if self.second_only > self.first_only else "worse"
        p = "p < 1e-300" if self.p_value < 1e-300 else f"p = {self.p_value:.2g}"
        return f"significantly {word} on {self.samples} images ({p})"


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % score interval of a share (E. B. Wilson 1927, JASA 22, 209-212).

    Unlike ``p ± 1.96 σ`` it stays within [0, 1] and does not collapse at 0 or ``total``.
    Raises ``ValueError`` unless 0 <= ``correct`` <= ``total`` and ``total`` > 0.
    """
    from scipy.stats import binomtest  # slow to import, and seldom needed

    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} samples is no share")
    interval = binomtest(correct, total).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(hits: Hits) -> Accuracy:
    """The accuracy of a model that is right where ``hits`` (N,) is true; N > 0."""
    correct = int(np.count_nonzero(hits))
    return Accuracy(correct, hits.size, *wilson(correct, hits.size))


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided p-value of two models being equally often right.

    Q. McNemar 1947, Psychometrika 12, 153-157, in its exact (binomial) form: only samples count
    that one model alone gets right, and of equally good models that is either with probability 1/2.
    """
    from scipy.stats import binomtest  # see wilson

    discordant = first_only + second_only
    return float(binomtest(first_only, discordant, 0.5).pvalue) if discordant else 1.0


def paired_test(first: Hits, second: Hits) -> PairedTest:
    """McNemar's test on the hits (N,) of two models on the same samples.

    Raises ``ValueError`` when the lengths differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"hits of {first.shape} and {second.shape} are not paired")
    one = int(np.count_nonzero(first & ~second))
    two = int(np.count_nonzero(second & ~first))
    return PairedTest(first.size, one, two, mcnemar(one, two))


def drop_interval(first: Hits, second: Hits) -> tuple[float, float]:
    """95 % interval of the first model's accuracy minus the second's, by their hits (N,); N > 0.

    R. G. Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: the score intervals of
    both shares, joined by how the hits correlate (with a correction for continuity).
    Raises ``ValueError`` when the lengths differ.
    """
    test = paired_test(first, second)
    both = int(np.count_nonzero(first & second))
    neither = test.samples - both - test.first_only - test.second_only
    one, two = both + test.first_only, both + test.second_only
    shares = one / test.samples, two / test.samples
    (low1, high1), (low2, high2) = (wilson(n, test.samples) for n in (one, two))
    product = float(both * neither - test.first_only * test.second_only)
    if product > 0:
        product = max(product - test.samples / 2, 0.0)
    spread = one * (test.samples - one) * two * (test.samples - two)
    phi = product / math.sqrt(spread) if spread else 0.0

    def joined(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    drop = shares[0] - shares[1]
    below = joined(shares[0] - low1, high2 - shares[1])
    return drop - below, drop + joined(high1 - shares[0], shares[1] - low2)


def top_hits(scores: NDArray[np.generic], labels: NDArray[np.int64], k: int) -> Hits:
    """Where the label is among the ``k`` highest ``scores`` (N, classes); (N,).

    Of equal scores the lower class counts as higher, so that k = 1 is the arg-max; NaN never hits.
    """
    values = np.asarray(scores, np.float64)
    own = np.take_along_axis(values, labels[:, None], axis=1)
    classes = np.arange(values.shape[1])
    before = (values > own) | ((values == own) & (classes < labels[:, None]))
    return np.asarray((before.sum(axis=1) < k) & ~np.isnan(own[:, 0]))

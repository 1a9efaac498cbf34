"""Atoms: the smallest sets of channels that can be removed, found by tying labels together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asr_onnx.arrays import IntArray


class Atoms:
    """Labels of channels, tied as the graph demands; the least label of an atom stands for it.

    A closed atom stays whole, for a reason in words.  (Union-find; Tarjan 1975.)
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}

    def fresh(self, count: int, reason: str = "") -> IntArray:
        """Labels (count,) tied to none; closed with a ``reason``."""
        labels = np.arange(len(self._parent), len(self._parent) + count)
        self._parent.extend(labels.tolist())
        if reason:
            self._reasons.update(dict.fromkeys(labels.tolist(), reason))
        return labels

    def root(self, label: int) -> int:
        """The atom a label belongs to."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = label = parent[parent[label]]
        return label

    def roots(self, labels: IntArray) -> IntArray:
        """The atoms of labels, of the same shape."""
        found = [self.root(label) for label in labels.ravel().tolist()]
        return np.array(found, np.int64).reshape(labels.shape)

    def tie(self, one: IntArray, other: IntArray) -> None:
        """Let labels stand or fall together, pair by pair."""
        pairs = np.broadcast_arrays(one, other)
        for a, b in zip(*(p.ravel().tolist() for p in pairs), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            if low != high:
                self._parent[high] = low
                if reason := self._reasons.pop(high, ""):
                    self._reasons.setdefault(low, reason)

    def close(self, labels: Iterable[int], reason: str) -> None:
        """Let atoms stay whole; the first reason counts."""
        for label in labels:
            self._reasons.setdefault(self.root(int(label)), reason)

    @property
    def reasons(self) -> dict[int, str]:
        """Why closed atoms stay, by atom."""
        return dict(self._reasons)

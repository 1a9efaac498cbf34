"""Where in a layer zeros may lie: one record per pattern, made once from what was typed.

To add a pattern, write a record with the attributes of ``Pattern`` and enter its parser into
``PATTERNS``; from Python, an instance may be given as ``PruneOptions(pattern=...)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.errors import UsageError
from asr_onnx.graph.records import Site
from asr_onnx.graph.rows import kernel_size
from asr_onnx.maths.masks import largest_mask, pattern_mask


@runtime_checkable
class Pattern(Protocol):
    """A pattern; its text, ``str(pattern)``, is what one types, and what reports say.

    ``density`` is the share of the weights that stays, the same in every layer; ``None`` where
    layers may have any, which a threshold over all of them or an allocation settles.
    """

    @property
    def density(self) -> float | None: ...

    def feasible(self, site: Site) -> str | None:
        """Why the site's weight cannot have the pattern, as a phrase; ``None`` if it can."""

    def mask(self, scores: FloatArray, keep: int, /) -> Mask:
        """The mask of the pattern with the highest total of a layer's ``scores`` (G, R, K).

        ``keep`` weights stay, or about as many as the pattern can, where it leaves that open.
        """


@dataclass(frozen=True)
class Unstructured:
    """Any weight may go."""

    density: None = None

    def __str__(self) -> str:
        return "unstructured"

    def feasible(self, site: Site) -> str | None:
        return None

    def mask(self, scores: FloatArray, keep: int) -> Mask:
        return largest_mask(scores, keep)


@dataclass(frozen=True)
class NM:
    """``kept`` of every ``group`` neighbours along the input channels stay, as TensorRT needs it.

    Raises ``UsageError`` unless 0 < ``kept`` < ``group``.
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.group:
            raise UsageError(f"pattern '{self}' is not N:M with 0 < N < M, such as 2:4")

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"

    @classmethod
    def parse(cls, text: str) -> NM | None:
        """``"2:4"``"""
        found = re.fullmatch(r"(\d+):(\d+)", text, re.ASCII)
        return cls(int(found[1]), int(found[2])) if found else None

    @property
    def density(self) -> float:
        return self.kept / self.group

    def feasible(self, site: Site) -> str | None:
        inputs = site.weight.value.size // site.channels // kernel_size(site)
        if inputs % self.group == 0:
            return None
        return f"input channels per group are no multiple of {self.group}: stays dense"

    def mask(self, scores: FloatArray, keep: int) -> Mask:
        return pattern_mask(scores, self.kept, self.group)


@dataclass(frozen=True)
class Channel:
    """Whole channels go, with all that makes and reads them: the model becomes narrower.

    No ``Pattern``: which of them go is no matter of one layer, see ``pruning.channels``.
    """

    def __str__(self) -> str:
        return "channel"


# How patterns are written -> the record of a text, or ``None`` when it is not one of the kind.
PATTERNS: dict[str, Callable[[str], Pattern | Channel | None]] = {
    "N:M": NM.parse,
    "channel": lambda text: Channel() if text == "channel" else None,
    "unstructured": lambda text: Unstructured() if text == "unstructured" else None,
}


def parse(text: str) -> Pattern | Channel:
    """The pattern that is written ``text``; raises ``UsageError`` when it is none.

    >>> parse("2:4")
    NM(kept=2, group=4)
    """
    for read in PATTERNS.values():
        if found := read(text):
            return found
    raise UsageError(f"pattern '{text}' is not {' or '.join(PATTERNS)}; N:M is such as 2:4")


def checked(pattern: Pattern, site: Site, scores: FloatArray, keep: int) -> Mask:
    """The pattern's mask of a site's ``scores`` (G, R, K); ``UsageError`` when it is no such."""
    mask = np.asarray(pattern.mask(scores, keep))
    if mask.shape != scores.shape or mask.dtype != bool:
        raise UsageError(
            f"pattern {pattern} gives {mask.dtype}{list(mask.shape)} for '{site.label}', not "
            f"bool{list(scores.shape)}"
        )
    return mask

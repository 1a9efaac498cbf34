"""How an output compares with the dense model's, in words: of ``OutputMatch`` as JSON holds it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from asr_onnx.reports.page import NONE, number, ratio, share

Match = Mapping[str, Any]
Matches = Mapping[str, Match]  # by output

HEADS = ("error", "cosine", "same answer")
CAPTION = "error: in units of the dense output's own spread; 0 is equal, 1 is lost"


def cells(match: Match) -> tuple[str, str, str]:
    """Error, cosine, and the share of the dense model's answers; in words where there is none."""
    error = NONE if match["cosine"] is None else ratio(match["relative_error"])
    same = "one answer" if match["one_answer"] else share(match["agreement"])
    return error, number(match["cosine"], 4), same


def error_of(match: Match) -> float | None:
    """The relative error, infinite ones included; ``None`` where outputs cannot be compared."""
    if match["cosine"] is None:
        return None
    return math.inf if match["relative_error"] is None else float(match["relative_error"])


def worst_error(matches: Matches) -> float | None:
    """The relative error of the output that is furthest off, of those that can be compared."""
    errors = [e for e in map(error_of, matches.values()) if e is not None]
    return max(errors, default=None)


def one_answer(matches: Matches) -> Iterator[str]:
    """A sentence for each output in which the dense model itself has nothing to tell apart."""
    for name, match in matches.items():
        if match["one_answer"]:
            yield (
                f"the dense model gives one and the same answer in output '{name}' on all "
                f"{match['samples']:,} samples, so agreement says nothing and is not counted: "
                "give samples of several kinds, and see that the preprocessing is the model's own"
            )

"""Recipes: named sets of options, and what recipe auto tries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_onnx.declare import flag

# What spells out how to repair, so that nothing is left to choose for recipe auto.
HOW = ("criterion", "reconstruct", "method", "prior", "one_shot", "keep_first", "bn_stats")

AUTO = "auto"
LADDER = ("asr", "refit", "best")  # what auto tries
RECIPES: dict[str, Mapping[str, Any]] = {
    # The first of the ladder that is good enough; until then its options are those of asr.
    AUTO: {},
    # Global magnitude and scaling: arXiv 2605.21426 made sound by a dense reference.
    "asr": {},
    # The same masks, but the surviving weights re-fitted: no search for better masks.
    "refit": {"reconstruct": True},
    # The strongest combination measured, see docs/measurements.md.
    "best": {"criterion": "obs", "reconstruct": True},
    # The paper's protocol: one-shot statistics, its prior, an unconverged re-estimation afterwards.
    "paper": {"prior": "median", "bn_stats": "ema", "one_shot": True, "keep_first": True},
}


def describe(name: str) -> str:
    """A recipe as the command-line options that spell it out."""
    if name == AUTO:
        return f"the first of {', '.join(LADDER)} that is good enough on the samples held out"
    words = [flag(n) if v is True else f"{flag(n)} {v}" for n, v in RECIPES[name].items()]
    return " ".join(words) or "the defaults"

"""Named sets of options; every option given by itself wins over the recipe's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asr_onnx.errors import UsageError
from asr_onnx.options import RepairOptions

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # Global magnitude and scaling: arXiv 2605.21426 made sound by a dense reference.
    "asr": {},
    # The strongest combination measured, see docs/measurements.md.
    "best": {"criterion": "obs", "reconstruct": True},
    # The paper's protocol: one-shot statistics, its prior, an unconverged re-estimation afterwards.
    "paper": {"prior": "median", "bn_stats": "ema", "one_shot": True, "keep_first": True},
}


def options_for(recipe: str, **given: Any) -> RepairOptions:
    """The recipe's options with those in ``given`` that are not ``None`` put in their place.

    Raises ``UsageError`` for an unknown recipe or option value.
    """
    if recipe not in RECIPES:
        raise UsageError(f"recipe '{recipe}' is none of {', '.join(RECIPES)}")
    wanted = {name: value for name, value in given.items() if value is not None}
    return RepairOptions(recipe=recipe, **{**RECIPES[recipe], **wanted})


def describe(recipe: str) -> str:
    """The recipe as the command-line options that spell it out."""
    words = []
    for name, value in RECIPES[recipe].items():
        flag = "--" + name.replace("_", "-")
        words.append(flag if value is True else f"{flag} {value}")
    return " ".join(words) or "the defaults"


def stronger(options: RepairOptions) -> str:
    """One line about what ``best`` would do beyond these options; empty when they are as strong."""
    missing = []
    if options.criterion != RECIPES["best"]["criterion"]:
        missing.append("choose the masks layer by layer from second moments")
    if not options.reconstruct:
        missing.append("re-fit the surviving weights by least squares")
    return f"--recipe best would also {' and '.join(missing)}" if missing else ""

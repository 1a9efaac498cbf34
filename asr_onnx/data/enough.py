"""Whether calibration data are enough to repair on: how many, and whether they differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from asr_onnx.data.batches import Batches
from asr_onnx.errors import CalibrationError

FEWEST = 8  # samples below which a repair is refused
FEW = 64  # below which it is warned of
_LOOKED_AT = 256  # samples that are compared with each other


def check_enough(batches: Batches, force: bool = False) -> list[str]:
    """Warnings about data that are few, all the same, or blank, each a line.

    Raises ``CalibrationError`` for fewer than ``FEWEST`` samples, and for samples that are all the
    same, unless ``force``.
    """
    count = batches.num_solve + batches.num_held_out
    found = list(_alike(batches, force))
    if count >= FEW:
        return found
    text = f"{count} calibration sample{'s' * (count > 1)}"
    if count < FEWEST and not force:
        raise CalibrationError(
            f"{text} are too few to repair on: give {FEWEST} at least, better {FEW} or more, or "
            "--force"
        )
    return [f"only {text}: with {FEW} or more the result is better, and better known", *found]


def _alike(batches: Batches, force: bool) -> Iterator[str]:
    chosen = [i for b in batches.batches for i in b.samples][:_LOOKED_AT]
    first: dict[bytes, int] = {}
    twice: list[tuple[int, int]] = []
    blank: list[int] = []
    for index in chosen:
        arrays = batches.samples[index]
        content = hashlib.sha256()
        for key in sorted(arrays):
            content.update(np.ascontiguousarray(arrays[key]).tobytes())
        other = first.setdefault(content.digest(), index)
        if other != index:
            twice.append((other, index))
        values = [a for a in arrays.values() if a.size > 1]
        if values and all((a == a.flat[0]).all() for a in values):
            blank.append(index)
    name = batches.samples.name
    if len(first) == 1 < len(chosen) and not force:
        raise CalibrationError(
            f"all {len(chosen)} calibration samples are the same as '{name(chosen[0])}': give "
            "different ones, or --force"
        )
    if twice:
        yield (
            f"{len(twice)} of {len(chosen)} calibration samples are the same as another, such as "
            f"'{name(twice[0][1])}' and '{name(twice[0][0])}'"
        )
    if blank:
        yield (
            f"{len(blank)} of {len(chosen)} calibration samples have one value everywhere, such as "
            f"'{name(blank[0])}'"
        )

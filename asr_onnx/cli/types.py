"""Words of the command line that click has no type for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # generic in the type checker's eyes only: old versions of click are not
    _Word = click.ParamType[Any]
    _Choice = click.Choice[str]
else:
    _Word = click.ParamType
    _Choice = click.Choice

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Choice(_Choice):
    """One of some words, or another word for one of them."""

    def __init__(self, choices: Iterable[str], words: Mapping[str, str]) -> None:
        super().__init__(list(choices))
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(self._words.get(value, value), param, ctx)


class Numbers(_Word):
    """``0.5`` or ``0.485,0.456,0.406`` (commas or spaces), or ``none``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value == "none":
            return value
        try:
            return tuple(float(v) for v in re.split(r"[,\s]+", value.strip()))
        except ValueError:
            self.fail(f"'{value}' is not numbers separated by commas", param, ctx)


class Percent(_Word):
    """``0.8`` or ``80%``; ``auto`` is left to who asked."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip()
        if text == "auto":
            return text
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"'{value}' is not a share such as 0.8 or 80%", param, ctx)


class SizeType(_Word):
    """``256``, ``224,320`` (height, width), or ``none``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or value == "none":
            return value
        try:
            sides = tuple(int(v) for v in re.split(r"[,x]", value))
        except ValueError:
            self.fail(f"'{value}' is not a size such as 256 or 224,320", param, ctx)
        return sides[0] if len(sides) == 1 else sides


class Bytes(_Word):
    """``500MB``, ``2GiB``; a bare number is bytes."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?)b?\s*", value.lower())
        if not found or found[2] not in _UNITS:
            self.fail(f"'{value}' is not a size such as 500MB or 2GiB", param, ctx)
        return int(float(found[1]) * _UNITS[found[2]])


class Words(_Word):
    """``Conv,Gemm``"""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(w for w in re.split(r"[,\s]+", value) if w)


NUMBERS, SIZE, BYTES, WORDS = Numbers(), SizeType(), Bytes(), Words()

# The type of a value, by what its declaration calls it.
KINDS: dict[str, Any] = {
    "text": click.STRING,
    "str": click.STRING,
    "number": click.FLOAT,
    "float": click.FLOAT,
    "int": click.INT,
    "positive": click.IntRange(1),
    "natural": click.IntRange(0),
    "share": click.FloatRange(0, 1, max_open=True),
    "path": click.Path(path_type=Path),
    "percent": Percent(),
    "numbers": NUMBERS,
    "size": SIZE,
    "bytes": BYTES,
    "words": WORDS,
}

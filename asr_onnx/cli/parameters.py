"""What an option is called in a file of options, and its values there and on the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from asr_onnx.cli.types import Bytes, Numbers, Percent, SizeType, Words

Value = str | bool | list[str]  # what click takes for a word of the command line, or several

_LONGEST = 1 << 256  # of whole numbers; Python takes long for the digits of much larger ones

# What a value of a type may be in a file, and in words; others are texts.
_TAKES: tuple[tuple[tuple[type, ...], tuple[type, ...], str], ...] = (
    ((Percent,), (str, int, float), 'a number or a text such as "80%"'),
    ((Numbers,), (str, int, float, list), "a number or an array of numbers"),
    ((SizeType,), (str, int, list), 'a whole number, an array of two, or "none"'),
    ((Bytes,), (str, int), 'a whole number or a text such as "2GiB"'),
    ((Words,), (str, list), "a text or an array of texts"),
    ((click.IntRange, type(click.INT)), (int,), "a whole number"),
    ((click.FloatRange, type(click.FLOAT)), (int, float), "a number"),
)
_NAMES = {dict: "a table", list: "an array", bool: "true or false", str: "a text"}


class GroupedOption(click.Option):
    """An option that knows under which heading ``--help`` shows it.

    ``settled`` is the value it has when it is not given, ``None`` where that is not one value.
    ``names_file`` are the texts that do not name a file, of an option whose other texts do.
    """

    def __init__(
        self,
        *args: Any,
        group: str = "",
        settled: Any = None,
        names_file: tuple[str, ...] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.group = group
        plain_flag = self.is_flag and not self.secondary_opts
        self.settled = False if plain_flag else settled
        self.names_file = names_file


def options_of(command: click.Command) -> dict[str, GroupedOption]:
    """The options of a command that a file may hold, by the key they have there."""
    found = (p for p in command.params if isinstance(p, GroupedOption) and p.expose_value)
    return {key_of(option): option for option in found}


def key_of(option: click.Option) -> str:
    """The long name: ``num-samples``."""
    return next(o for o in option.opts if o.startswith("--")).removeprefix("--")


def words_of(option: GroupedOption, value: Any) -> Value:
    """What the command line would hold for the value of a file.

    Raises ``ValueError`` that tells what the value is to be.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"is to be true or false, not {_told(value)}")
        return value
    if not option.multiple:
        return _word(option.type, value)
    if not isinstance(value, list):
        raise ValueError(f"is repeatable: give an array of values, not {_told(value)}")
    return [_word(option.type, item) for item in value]


def _word(kind: click.ParamType[Any], value: Any) -> str:
    takes, wanted = next(
        ((takes, told) for kinds, takes, told in _TAKES if isinstance(kind, kinds)),
        ((str,), "a text"),
    )
    if isinstance(value, bool) or not isinstance(value, takes):
        raise ValueError(f"is to be {wanted}, not {_told(value)}")
    if not isinstance(value, list):
        return _text(value)
    items: tuple[type, ...] = (str,) if isinstance(kind, Words) else (int, float)
    if not all(isinstance(v, items) and not isinstance(v, bool) for v in value):
        raise ValueError(f"is to be {wanted}, and one of its items is something else")
    return ",".join(map(_text, value))


def _text(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= _LONGEST:
        raise ValueError("is too large a number")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("is no number")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a zero byte")
    return str(value)


def _told(value: Any) -> str:
    return _NAMES.get(type(value)) or f"of type {type(value).__name__}"


def located(option: GroupedOption, words: Value, folder: Path) -> Value:
    """The words of an option, with paths that are relative to ``folder``."""
    if isinstance(words, list):
        return [_joined(option, word, folder) for word in words]
    return words if isinstance(words, bool) else _joined(option, words, folder)


def _joined(option: GroupedOption, word: str, folder: Path) -> str:
    is_path = isinstance(option.type, click.Path) and word != "-"
    is_file = option.names_file is not None and word not in option.names_file
    return str(folder / word) if is_path or is_file else word


def typed(option: GroupedOption, words: Value, ctx: click.Context) -> Any:
    """What click makes of the words; raises ``ValueError`` that tells what is wrong with them."""
    try:
        return option.type_cast_value(ctx, words)
    except click.BadParameter as error:
        raise ValueError(error.message) from None


def plain_value(value: Any) -> Any:
    """A parsed value as a file of options holds it: ``words_of`` takes it."""
    if isinstance(value, tuple | list):
        return [plain_value(v) for v in value]
    return value if isinstance(value, bool | int | float | str) else str(value)

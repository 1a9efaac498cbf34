"""Declare an option once: a field of a frozen record with its default, its choices and its help.

The records check themselves at birth; the command line makes its options from the same fields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import Field, field, fields
from typing import Any

from asr_onnx.errors import UsageError

_KEY = "option"


def option(default: Any, help: str, **more: Any) -> Any:
    """A field that is an option; left out (``None``), its value becomes ``default``.

    ``help`` is a sentence for the command line, which adds the default unless the sentence tells
    it.  ``more``: ``choices``, ``metavar``, ``kind`` (of value, where it is not the default's: see
    ``cli.types``), ``multiple`` and ``off``, the flag that turns a switch off.
    """
    return field(default=None, metadata={_KEY: {"default": default, "help": help, **more}})


def declared(f: Field[Any]) -> Mapping[str, Any] | None:
    """What was declared of a field, ``None`` for one that is no option."""
    found: Mapping[str, Any] | None = f.metadata.get(_KEY)
    return found


def fields_of(kind: type[Any]) -> list[str]:
    """Names of the fields of a record that are options."""
    return [f.name for f in fields(kind) if declared(f) is not None]


def fill(record: Any, values: Mapping[str, Any] | None = None) -> None:
    """Give the options of a frozen record that were left out their value.

    That is the one in ``values``, else the default.
    """
    for f in fields(record):
        told = declared(f)
        if told is not None and getattr(record, f.name) is None:
            object.__setattr__(record, f.name, (values or {}).get(f.name, told["default"]))


def one_of(what: str, value: object, allowed: Collection[str]) -> None:
    """Raise ``UsageError`` when ``value`` is a name that is not among ``allowed``."""
    if not callable(value) and value not in allowed:
        raise UsageError(f"{what} '{value}' is not one of {', '.join(allowed)}")


def flag(name: str) -> str:
    """The option of a field: ``--min-accuracy``."""
    return "--" + name.replace("_", "-")

"""Declare an option once: a field of a frozen record with its default, its choices and its help.

The records check themselves at birth; the command line makes its options from the same fields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import Field, field, fields
from numbers import Integral, Real
from os import PathLike
from typing import Any

from asr_onnx.errors import UsageError

_KEY = "option"


def option(default: Any, help: str, **more: Any) -> Any:
    """A field that is an option; left out (``None``), its value becomes ``default``.

    ``help`` is a sentence for the command line, which adds the default unless the sentence tells
    it.  ``more``: ``choices``, ``metavar``, ``kind`` (of value, where it is not the default's: see
    ``cli.types``), ``multiple``, ``off`` (the flag that turns a switch off); ``functions`` where
    one may be given for a choice, ``records`` for types of what may be given besides, ``also`` for
    values that are not told of, ``words`` for other words (a mapping to choices); ``names_file``
    where a text names a file, with the texts that do not.
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
    """Give the options of a frozen record that were left out their value, and check all of them.

    The value is the one in ``values``, else the default.  Raises ``UsageError`` for a value that is
    not of the declared kind, or not one of the choices.
    """
    for f in fields(record):
        about = declared(f)
        if about is None:
            continue
        if getattr(record, f.name) is None:
            object.__setattr__(record, f.name, (values or {}).get(f.name, about["default"]))
        value = getattr(record, f.name)
        if isinstance(value, str) and value in about.get("words", ()):
            value = about["words"][value]
            object.__setattr__(record, f.name, value)
        if value is not None and not _fits(value, about):
            raise UsageError(f"{f.name} {value!r} is not {_KINDS[_kind(about)][1]}")
        named = value is not None and not callable(value) and value not in about.get("also", ())
        if "choices" in about and named and not isinstance(value, about.get("records", ())):
            one_of(f.name.replace("_", " "), value, about["choices"])


# Kinds of values: the types they have, and in words what they are.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((Integral,), "a whole number"),
    "positive": ((Integral,), "a whole number"),
    "natural": ((Integral,), "a whole number"),
    "bytes": ((Integral,), "a number of bytes"),
    "float": ((Real,), "a number"),
    "number": ((Real,), "a number"),
    "percent": ((Real,), "a number"),
    "share": ((Real,), "a number"),
    "str": ((str,), "a text"),
    "text": ((str,), "a text"),
    "path": ((str, PathLike), "a path"),
    "words": ((str,), "a tuple of texts"),
    "numbers": ((Real, str), "numbers"),
    "size": ((Integral, str, tuple, list), "a size"),
}


def _kind(about: Mapping[str, Any]) -> str:
    return str(about.get("kind") or type(about["default"]).__name__)


def _fits(value: Any, about: Mapping[str, Any]) -> bool:
    """Whether a value is of the declared kind, or what else the declaration allows."""
    kind = _kind(about)
    types = _KINDS[kind][0]
    if callable(value) and not isinstance(value, type):
        return bool(about.get("functions"))
    if isinstance(value, about.get("records", ())):
        return True
    if about.get("multiple") or kind == "words":
        return isinstance(value, (tuple, list)) and all(isinstance(v, types) for v in value)
    if kind == "numbers" and isinstance(value, (tuple, list)):
        return all(isinstance(v, Real) for v in value)
    return isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))


def one_of(what: str, value: object, allowed: Collection[str]) -> None:
    """Raise ``UsageError`` when ``value`` is not among ``allowed``."""
    if value not in list(allowed):
        raise UsageError(f"{what} '{value}' is not one of {', '.join(allowed)}")


def flag(name: str) -> str:
    """The option of a field: ``--min-accuracy``."""
    return "--" + name.replace("_", "-")

"""The command line's options, made from the fields that declare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from asr_onnx.cli.command import command as command
from asr_onnx.cli.parameters import GroupedOption
from asr_onnx.cli.types import KINDS, Choice
from asr_onnx.declare import declared, fields_of, flag

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Decorator = Callable[[F], F]

FILE = click.Path(path_type=Path)
MODEL = click.argument("model", type=FILE)


def several(*options: Decorator[F]) -> Decorator[F]:
    """Several options as one decorator, in the order of the help text."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def group(title: str, *options: Decorator[F]) -> Decorator[F]:
    """The options under one heading."""

    def add(function: F) -> F:
        before = len(getattr(function, "__click_params__", ()))
        several(*options)(function)
        for made in function.__click_params__[before:]:  # type: ignore[attr-defined]
            made.group = title
        return function

    return add


def option(*flags: str, **settings: Any) -> Decorator[Any]:
    """An option that is no field of a record."""
    return click.option(*flags, cls=GroupedOption, **settings)


def of(kind: type[Any], *names: str, but: Sequence[str] = (), **changed: str) -> Decorator[Any]:
    """The options a record's fields declare: those named, or all ``but`` some.

    ``changed`` are other help texts, by name.
    """
    by_name = {f.name: f for f in fields(kind)}
    chosen = names or tuple(n for n in fields_of(kind) if n not in but)
    return several(*(_made(by_name[n], changed.get(n)) for n in chosen))


def _made(f: Field[Any], text: str | None) -> Decorator[Any]:
    about = declared(f)
    assert about is not None, f"{f.name} is no option"
    default, help = about["default"], text or about["help"]
    settings: dict[str, Any] = {"settled": default, "names_file": about.get("names_file")}
    flags = about.get("flag") or flag(f.name)
    if isinstance(default, bool):
        flags = f"{flags}/{about['off']}"
        default = "yes" if default else "no"
    elif about.get("choices"):
        settings["type"] = Choice(about["choices"], about.get("words", {}))
    else:
        settings["type"] = KINDS[about.get("kind") or type(default).__name__]
    if default not in (None, ()) and "[default" not in help:
        words = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        help = f"{help}  [default: {words}]"
    for name in ("metavar", "multiple"):
        if name in about:
            settings[name] = about[name]
    return option(flags, f.name, default=None, help=help, **settings)


def record(kind: Callable[..., T], settings: Mapping[str, Any], **more: Any) -> T:
    """The record of the options among ``settings`` that were given."""
    names = fields_of(kind)  # type: ignore[arg-type]
    given = {n: settings[n] for n in names if settings.get(n) is not None}
    return kind(**{**given, **more})


def output(default: str) -> Decorator[Any]:
    """Where to write; ``default`` in words."""
    return option("-o", "--output", type=FILE, help=f"File to write.  [default: {default}]")


FORCE = option("--force", is_flag=True, help="Overwrite files that exist.")
QUIET = option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
VERBOSE = option("-v", "--verbose", is_flag=True, help="Tell of every site, not only of the worst.")
KEEP_REJECTED = option(
    "--keep-rejected",
    is_flag=True,
    help="Write a model that is rejected, too, as .rejected.onnx instead of .onnx.",
)
REPORT = option(
    "--report",
    "reports",
    multiple=True,
    type=FILE,
    help="Write a report: .html or .md to be read, .json for machines, .xml (JUnit) for CI; "
    "repeatable.",
)

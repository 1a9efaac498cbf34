"""Options from a file: which file, what is in it, and that all of it is known and valid."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from asr_onnx.cli.conflicts import without_conflicts
from asr_onnx.cli.parameters import GroupedOption, Value, located, options_of, typed, words_of
from asr_onnx.data.texts import parse_toml, read_text
from asr_onnx.errors import UsageError
from asr_onnx.limits import CONFIG

NAME, PYPROJECT, VARIABLE = "asr-onnx.toml", "pyproject.toml", "ASR_ONNX_CONFIG"
ALL = "all"  # the table of the options that commands share
_TOOL = "asr-onnx"  # of pyproject.toml: [tool.asr-onnx]
_TOLD = 60  # characters of a key
_ROOT = 0  # the user whom everybody trusts

Commands = Mapping[str, click.Command]


@dataclass(frozen=True)
class Layer:
    """Options a command is given by something else than its command line.

    ``values`` are words by the name of the parameter, ``places`` what to call each, for people.
    """

    source: str
    values: Mapping[str, Value]
    places: Mapping[str, str]

    def without(self, names: Iterable[str]) -> Layer:
        """The same without some of the values."""
        left = {n: v for n, v in self.values.items() if n not in set(names)}
        return Layer(self.source, left, self.places)


@dataclass(frozen=True)
class ConfigFile:
    """The tables of a file; ``prefix`` of their names: that of the table all of them are in."""

    path: Path
    tables: Mapping[str, Any]
    prefix: str = ""

    def place(self, table: str) -> str:
        """A table as it stands in the file."""
        return f"[{self.prefix}{table}]"


def find() -> ConfigFile | None:
    """The file that is nearest to the current folder, up to the root of the repository.

    Raises ``UsageError`` for one that cannot be read, or belongs to another user.
    """
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return None
    for folder in (here, *here.parents):
        for name in (NAME, PYPROJECT):
            path = Path(os.path.relpath(folder / name)) if folder != here else Path(name)
            found = _found(path)
            if found:
                _check_owner(path)
                return found
        if os.path.lexists(folder / ".git"):
            break
    return None


def _found(path: Path) -> ConfigFile | None:
    """The file at a place to look at, if there is one that is meant."""
    if path.name == NAME:
        return read(path) if os.path.lexists(path) else None
    if not os.path.isfile(path):  # noqa: PTH113  a folder that may not be looked into has none
        return None
    text = _text(path)
    return _of_pyproject(path, text) if _TOOL in text else None


def read(path: Path) -> ConfigFile:
    """The file at a path; raises ``UsageError`` for one that cannot be read."""
    text = _text(path)
    if path.name != PYPROJECT:
        return ConfigFile(path, parse_toml(text, _what(path), UsageError))
    found = _of_pyproject(path, text)
    if found is None:
        raise UsageError(f"{path} has no table [tool.{_TOOL}]")
    return found


def _what(path: Path) -> str:
    return f"{path} (--no-config does without)"


def _text(path: Path) -> str:
    return read_text(path, _what(path), UsageError, CONFIG)


def _of_pyproject(path: Path, text: str) -> ConfigFile | None:
    tool = parse_toml(text, _what(path), UsageError).get("tool")
    tables = tool.get(_TOOL) if isinstance(tool, dict) else None
    if tables is None:
        return None
    if not isinstance(tables, dict):
        raise UsageError(f"{path}: tool.{_TOOL} is to be a table")
    return ConfigFile(path, tables, f"tool.{_TOOL}.")


def _check_owner(path: Path) -> None:
    """Options name scripts that are run: do not take them from wherever another user likes."""
    if os.name == "nt":
        return
    owner, me = path.stat().st_uid, os.geteuid()
    if me != _ROOT and owner not in (_ROOT, me):
        raise UsageError(f"{path} belongs to another user: --config {path} takes it all the same")


def layer_of(file: ConfigFile, command: str, commands: Commands, ctx: click.Context) -> Layer:
    """What a file says for a command; the whole file is checked.

    The command's own table wins over that of all.  Raises ``UsageError``, naming file and key.
    """
    known = {name: options_of(c) for name, c in commands.items()}
    for table, content in file.tables.items():
        _check_table(file, table, content, known)
    found: dict[str, Layer] = {}
    for table in (ALL, *known):
        values, places = {}, {}
        for key, name, value in _entries(file, table, command, known, ctx):
            values[name], places[name] = value, f"{file.place(table)} {key}"
        found[table] = Layer(str(file.path), values, places)
    own = found[command]
    shared = without_conflicts(own.values, found[ALL].values, _names(known[command]))
    return Layer(
        str(file.path),
        {**found[ALL].without(shared).values, **own.values},
        {**found[ALL].places, **own.places},
    )


def _names(options: Mapping[str, GroupedOption]) -> set[str]:
    return {str(option.name) for option in options.values()}


def _check_table(
    file: ConfigFile, table: str, content: Any, known: Mapping[str, Mapping[str, GroupedOption]]
) -> None:
    if not isinstance(content, dict):
        where = f" of [tool.{_TOOL}]" if file.prefix else ""
        raise UsageError(
            f"{file.path}: {_short(table)}{where} is in no table of a command: put it into "
            f"{file.place(ALL)}, or one such as {file.place('repair')}"
        )
    if table != ALL and table not in known:
        nearest = _nearest(table, (ALL, *known))
        told = (
            f"did you mean {file.place(nearest)}?"
            if nearest
            else (f"there are {ALL}, {', '.join(known)}")
        )
        raise UsageError(f"{file.path}: {file.place(_short(table))} is no command: {told}")


def _entries(
    file: ConfigFile,
    table: str,
    command: str,
    known: Mapping[str, Mapping[str, GroupedOption]],
    ctx: click.Context,
) -> Iterator[tuple[str, str, Value]]:
    """Key, parameter and words of a table's options; of those of all, that ``command`` has."""
    options = known[command] if table == ALL else known[table]
    everything = {k: o for of in known.values() for k, o in of.items()}
    allowed = everything if table == ALL else options
    for key, value in file.tables.get(table, {}).items():
        where = f"{file.path}: {file.place(table)} {_short(key)}"
        if key not in allowed:
            whose = "no command has" if table == ALL else f"{table} has no"
            raise UsageError(f"{where}: {whose} such option{_cure(key, allowed)}")
        option = options.get(key)
        if option is None:
            continue
        try:
            words = words_of(option, value)
            typed(option, words, ctx)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from None
        yield key, str(option.name), located(option, words, file.path.parent)


def _cure(key: str, allowed: Mapping[str, GroupedOption]) -> str:
    for name, option in allowed.items():
        if f"--{key}" in option.secondary_opts:
            return f": write {name} = false or true"
    nearest = _nearest(key, allowed)
    return f": did you mean {nearest}?" if nearest else ""


def _nearest(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word[:_TOLD].replace("_", "-"), list(known), 1)
    return found[0] if found else None


def _short(key: str) -> str:
    return key if len(key) <= _TOLD else f"{key[:_TOLD]}…"

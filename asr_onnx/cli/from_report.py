"""``--from-report``: the options and arguments of the run that a report is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from asr_onnx.cli.config import Layer
from asr_onnx.cli.parameters import GroupedOption, Value, options_of, typed, words_of
from asr_onnx.cli.resolved import defaults
from asr_onnx.errors import AsrError, UsageError
from asr_onnx.graph import model_file
from asr_onnx.provenance import sha256, versions
from asr_onnx.reports.files import read_report

# What is about the files and the terminal of that run, by key.
NOT_REPEATED = ("report", "json", "markdown", "force", "quiet", "verbose")


@dataclass(frozen=True)
class Run:
    """A run that a report is of: ``layer`` has its options; ``notes`` are worth knowing."""

    layer: Layer
    arguments: tuple[str, ...]
    notes: tuple[str, ...]


def run_of(
    path: Path, ctx: click.Context, arguments: Sequence[str], given_dense: str | None = None
) -> Run:
    """The run of a report, to be repeated.

    ``arguments``, and ``given_dense`` of ``--dense``, are those given in place of its own.

    Raises ``AsrError`` for a report that cannot be read, or tells no run of this command.
    """
    content = read_report(path)
    config, what = content.get("config"), f"report '{path}'"
    if config is None:
        raise UsageError(f"{what} has no config: an older asr-onnx wrote it, or Python; run anew")
    match config:
        case {"command": str(command), "arguments": list(old), "options": dict(options)}:
            pass
        case _:
            raise AsrError(f"{what} is damaged: its config is none")
    if command != ctx.command.name:
        raise UsageError(f"{what} is of asr-onnx {command}: give it to that command")
    if not all(isinstance(a, str) and a and "\0" not in a for a in old):
        raise AsrError(f"{what} is damaged: its arguments are no paths")
    layer = _layer(path, options, ctx)
    current = tuple(arguments) or tuple(old)
    models = [*zip(old, current, strict=False)]
    dense = options.get("dense")
    if isinstance(dense, str):
        models.append((dense, given_dense or dense))
    notes = (
        *_changed(models, content.get("files"), what),
        *_other_defaults(config.get("defaults"), options, ctx, what),
        *_other_versions(content.get("versions"), what),
    )
    return Run(layer, tuple(old), notes)


def _layer(path: Path, options: Mapping[str, Any], ctx: click.Context) -> Layer:
    known = options_of(ctx.command)
    values: dict[str, Value] = {}
    places: dict[str, str] = {}
    for key, value in options.items():
        if key in NOT_REPEATED:
            continue
        if key not in known:
            raise UsageError(
                f"report '{path}': {ctx.command.name} has no option {key[:60]!r}: it is of another "
                "version of asr-onnx"
            )
        try:
            words = words_of(known[key], _number(value, known[key]))
            typed(known[key], words, ctx)
        except ValueError as error:
            raise UsageError(f"report '{path}': {key}: {error}") from None
        values[str(known[key].name)], places[str(known[key].name)] = words, key
    return Layer(str(path), values, places)


def _number(value: Any, option: GroupedOption) -> Any:
    """What JSON has no number for; of an option that takes a text it may be a name."""
    takes_number = isinstance(option.type, type(click.FLOAT))
    return float(value) if takes_number and value in ("inf", "-inf", "nan") else value


def _changed(models: Sequence[tuple[str, str]], files: Any, what: str) -> Iterator[str]:
    """A sentence for each model, of those then and now, whose files have other hashes."""
    if not isinstance(files, dict):
        return
    for then, now in models:
        path, known = Path(now), files.get(str(Path(then)))
        if known is None or not path.is_file():
            continue
        (digest,) = sha256([path]).values()
        same = digest == known
        if same and then == now:  # its weights in other files may be others
            found = sha256(p for p in model_file.files(path) if p.is_file())
            same = all(files.get(p, digest) == digest for p, digest in found.items())
        if not same:
            yield f"warning: '{now}' is not what {what} is of: the result will be another"


def _other_defaults(
    then: Any, given: Mapping[str, Any], ctx: click.Context, what: str
) -> Iterator[str]:
    """A sentence for each option that was left to a default which is another now."""
    now = defaults(options_of(ctx.command))
    for key, value in then.items() if isinstance(then, dict) else ():
        if key in now and key not in given and now[key] != value:
            yield f"warning: --{key} was {value} in {what} by default, and is {now[key]} now"


def _other_versions(then: Any, what: str) -> Iterator[str]:
    if not isinstance(then, dict):
        return
    now = versions()
    other = [n for n, version in now.items() if n != "platform" and then.get(n) != version]
    if other:
        told = ", ".join(f"{n} {then.get(n)} (here {now[n]})" for n in other)
        yield f"{what} was written with {told}: figures may differ"
